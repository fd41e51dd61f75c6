//! Strikes at the network: cuts, delays, trickles, resets.

use std::collections::BTreeSet;
use std::time::Duration;

use super::bag::Bag;
use super::{Hurt, Kind, Schedule, Strike, list};
use crate::cluster::Member;
use crate::lab::leaders::Known;
use crate::lab::proxy::{Condition, Network, Place, Traffic};

/// Delays are between these; the upper one is far below the time after which a link is given up.
const DELAY_MIN: Duration = Duration::from_millis(5);
const DELAY_MAX: Duration = Duration::from_millis(250);

/// A slow way carries between these.
const RATE_MIN: u32 = 2_000;
const RATE_MAX: u32 = 60_000;

/// Between resets of one strike.
const RESET_PAUSE: Duration = Duration::from_millis(60);

/// The hand that strikes at the network.
pub(in crate::lab) struct Links<'a> {
    network: &'a Network,
    members: Vec<Member>,
    schedule: Schedule,
    bag: Bag<Kind>,
    leaders: Known,
    pub(in crate::lab) strikes: Vec<Strike>,
}

/// One direction, from whom to whom.
type Ends = (Place, Place);

impl<'a> Links<'a> {
    pub(in crate::lab) fn new(
        network: &'a Network,
        members: Vec<Member>,
        schedule: Schedule,
        kinds: &[Kind],
        leaders: Known,
    ) -> Self {
        let mine =
            [Kind::Partition, Kind::OneWay, Kind::Delay, Kind::Slow, Kind::Reset, Kind::Client];
        let mine = mine.into_iter().filter(|kind| kinds.contains(kind)).collect();
        Self { network, members, schedule, bag: Bag::new(mine), leaders, strikes: Vec::new() }
    }

    /// Strikes until the schedule says that it is enough. The network is whole again then.
    pub(in crate::lab) async fn run(&mut self) {
        while self.schedule.next().await {
            match self.bag.draw(&mut self.schedule.random) {
                Some(Kind::Partition) => self.partition().await,
                Some(Kind::OneWay) => self.one_way().await,
                Some(Kind::Delay) => self.delay().await,
                Some(Kind::Slow) => self.slow().await,
                Some(Kind::Reset) => self.reset().await,
                Some(Kind::Client) => self.clients().await,
                Some(_) | None => {}
            }
        }
        self.network.heal();
    }

    async fn partition(&mut self) {
        let members = self.members.clone();
        // A bridge needs two sides beside it.
        let shapes = if members.len() > 2 { 4 } else { 3 };
        let (name, whom, cut) = match self.schedule.below(shapes) {
            0 | 1 => {
                let leader = self.leaders.leader().filter(|_| self.schedule.below(2) == 0);
                let alone = leader.unwrap_or_else(|| *self.schedule.one(&members));
                let rest = without(&members, &[alone]);
                (format!("{alone} cut off"), vec![alone], crossing(&[alone], &rest))
            }
            2 => {
                let mut side = self.schedule.some(&members);
                if side.len() == members.len() {
                    side.pop();
                }
                let rest = without(&members, &side);
                let name = format!("{} | {}", list(&side), list(&rest));
                (name, Vec::new(), crossing(&side, &rest))
            }
            _ => {
                let bridge = *self.schedule.one(&members);
                let rest = without(&members, &[bridge]);
                let (left, right) = rest.split_at(rest.len() / 2);
                let name = format!("{} | {}, bridged by {bridge}", list(left), list(right));
                (name, Vec::new(), crossing(left, right))
            }
        };
        let cut: Vec<Ends> = cut.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        self.hold(Kind::Partition, format!("partition: {name}"), whom, &cut).await;
    }

    async fn one_way(&mut self) {
        let members = self.members.clone();
        let one = *self.schedule.one(&members);
        let others = without(&members, &[one]);
        let others = self.schedule.some(&others);
        let (name, cut) = match self.schedule.below(2) {
            0 => (format!("{one} is not heard by {}", list(&others)), crossing(&[one], &others)),
            _ => (format!("{one} does not hear {}", list(&others)), crossing(&others, &[one])),
        };
        self.hold(Kind::OneWay, format!("one way: {name}"), vec![one], &cut).await;
    }

    async fn clients(&mut self) {
        let members = self.members.clone();
        let one = *self.schedule.one(&members);
        let (there, back) = ((Place::Clients, one.into()), (one.into(), Place::Clients));
        let (name, cut) = match self.schedule.below(3) {
            0 => (format!("clients do not hear {one}"), vec![back]),
            1 => (format!("{one} does not hear clients"), vec![there]),
            _ => (format!("no clients at {one}"), vec![there, back]),
        };
        self.hold(Kind::Client, name, vec![one], &cut).await;
    }

    /// Cuts these for a while. Then what waited arrives late, or its connections are reset.
    async fn hold(&mut self, kind: Kind, name: String, whom: Vec<Member>, cut: &[Ends]) {
        let (from, before) = (self.schedule.clock.nanos(), traffic(self.network, cut));
        self.set(cut, Condition::Cut);
        let network = self.network;
        let met = || traffic(network, cut).since(before);
        self.schedule.hold(|| met().held + met().dials_held > 0).await;
        let resets = self.schedule.below(2) == 0;
        if resets {
            self.reset_all(cut);
        }
        self.set(cut, Condition::Open);
        let met = traffic(self.network, cut).since(before);
        let (fired, bytes) = (met.held + met.dials_held, met.held_bytes);
        let ending = if resets { "were lost" } else { "arrived late" };
        let evidence = format!(
            "{} pieces of {bytes} bytes in all ran into it and {ending}, {} connections did not \
             come about",
            met.held, met.dials_held
        );
        let hurt = match kind {
            // Clients find another process, after a while.
            Kind::Client => Hurt::Members,
            _ => Hurt::Ways(cut.to_vec()),
        };
        self.note(kind, name, whom, hurt, from, fired, evidence);
    }

    async fn delay(&mut self) {
        let (whom, ways) = self.some_ways();
        let spread = DELAY_MAX - DELAY_MIN;
        let delay = DELAY_MIN + self.schedule.up_to(spread / 2);
        let jitter = self.schedule.up_to(spread / 2);
        let condition = Condition::Delayed { delay, jitter };
        let name = format!(
            "delay of {} to {} ms at {}",
            delay.as_millis(),
            (delay + jitter).as_millis(),
            list(&whom)
        );
        self.hold_in(Kind::Delay, name, whom, &ways, condition).await;
    }

    async fn slow(&mut self) {
        let (whom, ways) = self.some_ways();
        let spread = u64::from(RATE_MAX - RATE_MIN);
        let more = u32::try_from(self.schedule.below(spread)).expect("it is below a u32");
        let condition = Condition::Slow { bytes_per_second: RATE_MIN + more };
        let name = format!("{} bytes a second at {}", RATE_MIN + more, list(&whom));
        self.hold_in(Kind::Slow, name, whom, &ways, condition).await;
    }

    async fn hold_in(
        &mut self,
        kind: Kind,
        name: String,
        whom: Vec<Member>,
        ways: &[Ends],
        condition: Condition,
    ) {
        let (from, before) = (self.schedule.clock.nanos(), traffic(self.network, ways));
        self.set(ways, condition);
        let network = self.network;
        let met = || traffic(network, ways).since(before);
        self.schedule.hold(|| met().delayed + met().slowed > 0).await;
        self.set(ways, Condition::Open);
        let met = traffic(self.network, ways).since(before);
        let fired = met.delayed + met.slowed;
        let evidence = format!("{fired} pieces ran into it");
        self.note(kind, name, whom, Hurt::Members, from, fired, evidence);
    }

    async fn reset(&mut self) {
        let (whom, ways) = self.some_ways();
        let (from, before) = (self.schedule.clock.nanos(), self.network.total());
        let length = self.schedule.length() / 2;
        let end = std::time::Instant::now() + length;
        while std::time::Instant::now() < end {
            let one = *self.schedule.one(&ways);
            self.reset_all(&[one]);
            let pause = RESET_PAUSE + self.schedule.up_to(RESET_PAUSE);
            tokio::time::sleep(pause).await;
        }
        let fired = self.network.total().since(before).resets;
        let name = format!("connections of {} reset", list(&whom));
        let evidence = format!("{fired} connections reset");
        self.note(Kind::Reset, name, whom, Hurt::Members, from, fired, evidence);
    }

    /// All ways from and to one member, or several.
    fn some_ways(&mut self) -> (Vec<Member>, Vec<Ends>) {
        let members = self.members.clone();
        let whom = self.schedule.some(&members);
        let mut ways = BTreeSet::new();
        for one in &whom {
            let others = without(&members, &[*one]);
            ways.extend(crossing(&[*one], &others));
            ways.extend(crossing(&others, &[*one]));
        }
        (whom, ways.into_iter().collect())
    }

    fn set(&self, ways: &[Ends], condition: Condition) {
        ways.iter().for_each(|(from, to)| self.network.set(*from, *to, condition));
    }

    fn reset_all(&self, ways: &[Ends]) {
        ways.iter().for_each(|(from, to)| self.network.reset(*from, *to));
    }

    #[expect(clippy::too_many_arguments, reason = "a strike is made of so many facts")]
    fn note(
        &mut self,
        kind: Kind,
        name: String,
        whom: Vec<Member>,
        hurt: Hurt,
        from: u64,
        fired: u64,
        evidence: String,
    ) {
        let to = self.schedule.clock.nanos();
        self.strikes.push(Strike { kind, name, whom, hurt, from, to, fired, evidence });
    }
}

fn traffic(network: &Network, ways: &[Ends]) -> Traffic {
    let each = ways.iter().map(|(from, to)| network.traffic(*from, *to));
    each.fold(Traffic::default(), Traffic::plus)
}

fn without(members: &[Member], gone: &[Member]) -> Vec<Member> {
    members.iter().copied().filter(|member| !gone.contains(member)).collect()
}

/// Every way from one side to the other.
fn crossing(from: &[Member], to: &[Member]) -> Vec<Ends> {
    let pairs = from.iter().flat_map(|one| to.iter().map(move |other| (*one, *other)));
    pairs.map(|(one, other)| (one.into(), other.into())).collect()
}
