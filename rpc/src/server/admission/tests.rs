//! The controller before a server that is played, in time that is played too.

use std::collections::{BTreeSet, VecDeque};

use kvorum_replication::random::Random;

use super::*;

/// A server that does one thing after the other, and lets each rest for a while on its disk.
#[derive(Clone, Copy)]
struct Played {
    /// What each costs the one who does them all in turn.
    each: Duration,
    /// What passes besides, beside others.
    rest: Duration,
    /// Answers leave so far apart, as many as there are.
    apart: Duration,
}

/// What became of a load.
#[derive(Debug, Default)]
struct Outcome {
    done: u64,
    refused: u64,
    waits: Vec<Duration>,
    /// By connection.
    done_by: Vec<u64>,
}

impl Outcome {
    fn wait(&self, percent: usize) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        waits[(waits.len() - 1) * percent / 100]
    }
}

/// One who asks at random moments, so often a second.
struct Client {
    per_second: f64,
}

/// A run in played time: clients before a controller before a server.
struct Run {
    began: Instant,
    now: Instant,
    server: Played,
    admission: Rc<Admission>,
    shares: Vec<Rc<Share>>,
    random: Random,
    /// Under way, in the order in which they end.
    queue: VecDeque<Asked>,
    /// When the server has done all that it was given.
    free: Instant,
}

struct Asked {
    place: Place,
    by: usize,
    at: Instant,
    ends: Instant,
}

impl Run {
    fn new(server: Played, connections: usize) -> Self {
        let admission = Rc::new(Admission::new(Duration::from_millis(20), 16_384));
        let shares = (0..connections).map(|_| Share::new(&admission)).collect();
        let now = Instant::now();
        let (random, queue) = (Random::new(7), VecDeque::new());
        Self { began: now, now, server, admission, shares, random, queue, free: now }
    }

    /// Lets the clients ask for so long, and says what became of it.
    fn load(&mut self, clients: &[Client], long: Duration) -> Outcome {
        let mut outcome = Outcome { done_by: vec![0; clients.len()], ..Outcome::default() };
        let end = self.now + long;
        let mut asking = BTreeSet::new();
        for (index, client) in clients.iter().enumerate() {
            asking.insert((self.now + self.gap(client), index));
        }
        while let Some((at, index)) = asking.pop_first()
            && at < end
        {
            self.answer_until(at, &mut outcome);
            asking.insert((at + self.gap(&clients[index]), index));
            self.now = at;
            self.ask(index, &mut outcome);
        }
        self.answer_until(end, &mut outcome);
        self.now = end;
        outcome
    }

    /// Nobody asks until all is answered.
    fn drain(&mut self) {
        let mut outcome = Outcome { done_by: vec![0; self.shares.len()], ..Outcome::default() };
        self.now = self.queue.back().map_or(self.now, |last| last.ends);
        self.answer_until(self.now, &mut outcome);
    }

    /// Between two requests of a client; exponentially distributed.
    fn gap(&mut self, client: &Client) -> Duration {
        let chance = (self.random.below(1 << 30) + 1) as f64 / (1_u64 << 30) as f64;
        Duration::from_secs_f64(-chance.ln() / client.per_second)
    }

    fn ask(&mut self, by: usize, outcome: &mut Outcome) {
        let at = self.now;
        self.admission.look(|| at);
        match self.shares[by].admit(Kind::Write, || at) {
            Some(place) => {
                self.free = self.free.max(at) + self.server.each;
                let ends = self.free + self.server.rest;
                let ends = self.queue.back().map_or(ends, |last| last.ends.max(ends));
                let ends = self.leaves(ends);
                self.queue.push_back(Asked { place, by, at, ends });
            }
            None => outcome.refused += 1,
        }
    }

    /// When an answer leaves that is there then.
    fn leaves(&self, then: Instant) -> Instant {
        let apart = self.server.apart.as_nanos().max(1);
        let late = (then - self.began).as_nanos() % apart;
        then + Duration::from_nanos(u64::try_from((apart - late) % apart).unwrap())
    }

    fn answer_until(&mut self, until: Instant, outcome: &mut Outcome) {
        while let Some(asked) = self.queue.pop_front_if(|asked| asked.ends <= until) {
            outcome.done += 1;
            outcome.done_by[asked.by] += 1;
            outcome.waits.push(asked.ends - asked.at);
            asked.place.answered(false, || asked.ends);
        }
    }

    fn under_way(&self) -> usize {
        self.admission.kinds[Kind::Write as usize].under_way.get()
    }

    fn limit(&self) -> usize {
        self.admission.limits()[Kind::Write as usize]
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Fifty thousand a second at most, and half a millisecond for one by itself.
const FAST: Played = Played {
    each: Duration::from_micros(20),
    rest: Duration::from_micros(500),
    apart: Duration::ZERO,
};

/// As many with a slow disk.
const SLOW_DISK: Played = Played { rest: Duration::from_millis(15), ..FAST };

/// As many, in groups.
const GROUPS: Played = Played { apart: Duration::from_millis(4), ..FAST };

/// Two hundred a second, whatever one does.
const SLOW: Played =
    Played { each: Duration::from_millis(5), rest: Duration::ZERO, apart: Duration::ZERO };

fn clients(count: usize, per_second: f64) -> Vec<Client> {
    (0..count).map(|_| Client { per_second: per_second / count as f64 }).collect()
}

#[test]
fn at_twice_the_capacity_as_much_is_done_and_nobody_waits_long() {
    // The slow one waits for those who are always let in.
    for (server, capacity, bearable_millis) in [
        (FAST, 50_000.0, 17),
        (SLOW_DISK, 50_000.0, 40),
        (GROUPS, 50_000.0, 28),
        (SLOW, 200.0, 375),
    ] {
        let long = Duration::from_secs_f64(20_000.0 / capacity);
        let mut run = Run::new(server, 50);
        let half = run.load(&clients(50, capacity / 2.0), long);
        run.load(&clients(50, capacity * 2.0), long);
        let twice = run.load(&clients(50, capacity * 2.0), long);
        assert_eq!(half.refused, 0, "what can be done is done");
        let done = twice.done as f64 / long.as_secs_f64();
        assert!(done > capacity * 0.98, "{done} of {capacity}");
        assert!(twice.refused > twice.done * 9 / 10, "the rest was refused");
        let bearable = Duration::from_millis(bearable_millis);
        assert!(twice.wait(50) <= bearable, "{:?} for half", twice.wait(50));
        assert!(twice.wait(99) <= bearable * 3 / 2, "{:?} for the unluckiest", twice.wait(99));
    }
}

#[test]
fn a_burst_that_can_be_borne_is_let_in_also_after_a_calm() {
    let mut run = Run::new(FAST, 64);
    run.load(&clients(64, 100.0), SECOND * 5);
    run.drain();
    let now = run.now;
    let places: Vec<_> = (0..256)
        .map(|index| run.shares[index % 64].admit(Kind::Write, || now).expect("let in"))
        .collect();
    assert_eq!(run.under_way(), places.len());
    drop(places);
    assert_eq!(run.under_way(), 0);
}

#[test]
fn a_stall_and_a_slower_server_are_got_over() {
    let mut run = Run::new(FAST, 50);
    let load = clients(50, 100_000.0);
    run.load(&load, SECOND / 2);
    let before = run.limit();
    // Nothing for a while: what is under way stays, and everybody else is refused at once.
    run.free += SECOND / 2;
    let stall = run.load(&load, SECOND / 2);
    assert!(stall.waits.len() < 2 * before && stall.refused > 45_000, "{stall:?}");
    run.load(&load, SECOND / 2);
    let after = run.load(&load, SECOND / 2);
    assert!(after.done > 24_500, "{}", after.done);
    assert!(after.wait(99) < Duration::from_millis(24), "{:?}", after.wait(99));
    // Three times as slow from now on.
    run.server = Played { each: Duration::from_micros(60), ..FAST };
    run.load(&load, SECOND * 2);
    let slower = run.load(&load, SECOND / 2);
    assert!(slower.done > 8_000, "{}", slower.done);
    assert!(slower.wait(99) < Duration::from_millis(45), "{:?}", slower.wait(99));
}

#[test]
fn what_slows_everything_down_is_no_queue() {
    // Who asks for that much takes the processor from the server, whose answers take longer, however
    // few it lets in. Fewer would only be fewer.
    for before in [FAST, GROUPS] {
        let mut run = Run::new(before, 50);
        run.load(&clients(50, 10_000.0), SECOND);
        run.server.rest = Duration::from_millis(20);
        run.load(&clients(50, 100_000.0), SECOND);
        let outcome = run.load(&clients(50, 100_000.0), SECOND * 2);
        assert!(outcome.done > 95_000, "{}: {}", outcome.done, run.limit());
        assert!(outcome.wait(99) < Duration::from_millis(60), "{:?}", outcome.wait(99));
    }
}

#[test]
fn a_queue_that_is_much_too_long_is_seen_before_it_is_over() {
    // What was let in at first would take 4 s.
    let mut run = Run::new(Played { each: Duration::from_millis(1), ..FAST }, 50);
    run.load(&clients(50, 20.0), SECOND);
    run.load(&clients(50, 3000.0), SECOND / 2);
    let outcome = run.load(&clients(50, 3000.0), SECOND * 2);
    assert!(outcome.done > 1_990, "{}", outcome.done);
    // It is those who are always let in that wait.
    assert!(outcome.wait(99) < Duration::from_millis(90), "{:?}", outcome.wait(99));
}

#[test]
fn clients_that_wait_out_a_stall_are_not_refused_after_it() {
    let mut run = Run::new(FAST, 64);
    run.load(&clients(64, 40_000.0), SECOND / 4);
    run.drain();
    for _ in 0..4 {
        // Each asks again when it was answered, so that all are under way when it stalls.
        let now = run.now;
        run.free = now + SECOND;
        let mut outcome = Outcome { done_by: vec![0; 64], ..Outcome::default() };
        for index in 0..256 {
            run.ask(index % 64, &mut outcome);
        }
        run.now = now + SECOND / 10;
        run.admission.look(|| run.now);
        run.drain();
        assert_eq!(outcome.refused, 0);
        run.load(&clients(64, 40_000.0), SECOND / 20);
        run.drain();
    }
}

#[test]
fn one_who_asks_for_everything_starves_nobody() {
    let mut run = Run::new(FAST, 50);
    let mut load = clients(50, 25_000.0);
    load[0] = Client { per_second: 250_000.0 };
    run.load(&load, SECOND / 4);
    let outcome = run.load(&load, SECOND);
    let greedy = outcome.done_by[0];
    let modest: u64 = outcome.done_by[1..].iter().sum();
    assert!(modest > 24_000, "{modest} of about 24,500 for the modest");
    assert!(greedy > 24_000, "{greedy}: what they leave is not wasted");
}

#[test]
fn what_fails_quickly_teaches_nothing() {
    let mut run = Run::new(FAST, 2);
    run.load(&clients(2, 10_000.0), SECOND);
    run.drain();
    let (before, now) = (run.limit(), run.now);
    for _ in 0..1000 {
        let places: Vec<_> =
            (0..200).filter_map(|_| run.shares[0].admit(Kind::Write, || now)).collect();
        for place in places {
            place.answered(true, || now + Duration::from_nanos(100));
        }
    }
    assert_eq!((run.limit(), run.under_way()), (before, 0));
    // A probe that is never answered makes room for another.
    drop(run.shares[0].admit(Kind::Write, || now));
    let asked = std::cell::Cell::new(0);
    let place = run.shares[0].admit(Kind::Write, || {
        asked.set(asked.get() + 1);
        now
    });
    assert_eq!(asked.get(), 1);
    drop(place);
}

#[test]
fn kinds_do_not_stand_in_each_other_s_way() {
    let mut run = Run::new(FAST, 1);
    let now = run.now;
    let mut writes = Vec::new();
    while let Some(place) = run.shares[0].admit(Kind::Write, || now) {
        writes.push(place);
    }
    assert_eq!(writes.len(), LIMIT_AT_FIRST / 2, "one connection has half");
    assert!(run.shares[0].admit(Kind::Get, || now).is_some());
    assert!(run.shares[0].admit(Kind::Scan, || now).is_some());
    let newcomer = Share::new(&run.admission);
    assert!(newcomer.admit(Kind::Write, || now).is_some());
    run.drain();
}
