//! A cut is a cut, one way is one way, and what ran into it is counted.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kvorum::cluster::Member;
use kvorum::lab::proxy::{Condition, Network, Place, Route, Traffic};

const ONE: Place = Place::Member(Member::Replica(1));
const TWO: Place = Place::Member(Member::Replica(2));

/// Longer than anything here takes on a busy machine; only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(300);

/// For so long something is watched that must not happen; what is found wrong by it is found sooner.
const MOMENT: Duration = Duration::from_millis(40);

/// A connection that ONE dialled to TWO, through a network.
struct Connected {
    network: Network,
    listener: TcpListener,
    one: TcpStream,
    two: TcpStream,
}

fn network() -> (Network, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listens = listener.local_addr().unwrap();
    (Network::start(&[Route { from: ONE, to: TWO, listens }], 1).unwrap(), listener)
}

fn dial(network: &Network) -> TcpStream {
    let stream = TcpStream::connect(network.address(ONE, TWO)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn connected() -> Connected {
    let (network, listener) = network();
    let one = dial(&network);
    let (two, _) = listener.accept().unwrap();
    two.set_read_timeout(Some(PATIENCE)).unwrap();
    Connected { network, listener, one, two }
}

fn read(from: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    from.read_exact(&mut read).unwrap();
    read
}

/// Nothing comes, not even an end.
#[track_caller]
fn check_silent(from: &mut TcpStream) {
    from.set_read_timeout(Some(MOMENT)).unwrap();
    let error = from.read(&mut [0]).expect_err("something arrived");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    from.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[track_caller]
fn check_reset(from: &mut TcpStream) {
    let error = from.read(&mut [0]).expect_err("the connection should be reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[track_caller]
fn await_that(network: &Network, from: Place, to: Place, is: impl Fn(Traffic) -> bool) {
    let began = Instant::now();
    while !is(network.traffic(from, to)) {
        assert!(began.elapsed() < PATIENCE, "{:?}", network.traffic(from, to));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_open_way_carries_both_directions_and_the_end() {
    let mut net = connected();
    net.one.write_all(b"there").unwrap();
    net.two.write_all(b"back").unwrap();
    assert_eq!(read(&mut net.two, 5), b"there");
    assert_eq!(read(&mut net.one, 4), b"back");
    drop(net.one);
    assert_eq!(net.two.read(&mut [0]).unwrap(), 0);
    await_that(&net.network, ONE, TWO, |way| way.carried_bytes == 5);
    await_that(&net.network, TWO, ONE, |way| way.carried_bytes == 4);
    assert_eq!(net.network.total().held, 0);
}

#[test]
fn a_cut_holds_everything_until_it_heals() {
    let mut net = connected();
    net.network.set_both(ONE, TWO, Condition::Cut);
    net.one.write_all(b"there").unwrap();
    net.two.write_all(b"back").unwrap();
    await_that(&net.network, ONE, TWO, |way| way.held_bytes == 5);
    await_that(&net.network, TWO, ONE, |way| way.held_bytes == 4);
    check_silent(&mut net.one);
    check_silent(&mut net.two);
    net.network.heal();
    assert_eq!(read(&mut net.two, 5), b"there");
    assert_eq!(read(&mut net.one, 4), b"back");
}

#[test]
fn one_way_is_one_way() {
    let mut net = connected();
    net.network.set(ONE, TWO, Condition::Cut);
    net.one.write_all(b"unheard").unwrap();
    net.two.write_all(b"heard").unwrap();
    assert_eq!(read(&mut net.one, 5), b"heard");
    await_that(&net.network, ONE, TWO, |way| way.held_bytes == 7);
    check_silent(&mut net.two);
    assert_eq!(net.network.traffic(TWO, ONE).held, 0);
    net.network.set(ONE, TWO, Condition::Open);
    assert_eq!(read(&mut net.two, 7), b"unheard");
}

#[test]
fn nobody_hears_through_a_cut_that_the_other_is_gone() {
    let mut net = connected();
    net.network.set_both(ONE, TWO, Condition::Cut);
    drop(net.one);
    await_that(&net.network, ONE, TWO, |way| way.held == 1);
    check_silent(&mut net.two);
    net.network.heal();
    assert_eq!(net.two.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_reset_loses_what_was_under_way() {
    let mut net = connected();
    net.network.set_both(ONE, TWO, Condition::Cut);
    net.one.write_all(b"lost").unwrap();
    await_that(&net.network, ONE, TWO, |way| way.held_bytes == 4);
    net.network.reset(TWO, ONE);
    net.network.heal();
    check_reset(&mut net.one);
    check_reset(&mut net.two);
    await_that(&net.network, ONE, TWO, |way| (way.dropped_bytes, way.resets) == (4, 1));
    // A new connection is fine.
    let mut one = dial(&net.network);
    one.write_all(b"new").unwrap();
    let (mut two, _) = net.listener.accept().unwrap();
    assert_eq!(read(&mut two, 3), b"new");
}

#[test]
fn no_connection_comes_about_through_a_cut() {
    for (from, to) in [(ONE, TWO), (TWO, ONE)] {
        let (network, listener) = network();
        network.set(from, to, Condition::Cut);
        let mut one = dial(&network);
        one.write_all(b"hello").unwrap();
        await_that(&network, ONE, TWO, |way| way.dials_held == 1);
        listener.set_nonblocking(true).unwrap();
        check_silent(&mut one);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        network.heal();
        check_reset(&mut one);
    }
}

#[test]
fn delayed_messages_come_late_and_in_order() {
    const DELAY: Duration = Duration::from_millis(30);
    let mut net = connected();
    let condition = Condition::Delayed { delay: DELAY, jitter: DELAY };
    net.network.set(ONE, TWO, condition);
    let began = Instant::now();
    for number in 0..20 {
        net.one.write_all(&[number]).unwrap();
    }
    let expected: Vec<u8> = (0..20).collect();
    assert_eq!(read(&mut net.two, 20), expected);
    assert!(began.elapsed() >= DELAY, "{:?}", began.elapsed());
    assert!(net.network.traffic(ONE, TWO).delayed > 0);
    net.two.write_all(b"at once").unwrap();
    assert_eq!(read(&mut net.one, 7), b"at once");
    assert_eq!(net.network.traffic(TWO, ONE).delayed, 0);
}

#[test]
fn a_slow_way_is_slow_until_it_heals() {
    const BYTES: usize = 256 << 10;
    let mut net = connected();
    // All of it would take four minutes.
    net.network.set(ONE, TWO, Condition::Slow { bytes_per_second: 1024 });
    net.one.write_all(&vec![7; BYTES]).unwrap();
    assert_eq!(read(&mut net.two, 100), [7; 100]);
    await_that(&net.network, ONE, TWO, |way| way.slowed > 0);
    assert!(net.network.traffic(ONE, TWO).carried_bytes < BYTES as u64);
    net.network.heal();
    read(&mut net.two, BYTES - 100);
}

#[test]
fn what_waits_is_bounded() {
    let net = connected();
    net.network.set(ONE, TWO, Condition::Cut);
    let mut one = net.one;
    one.set_write_timeout(Some(MOMENT)).unwrap();
    let (piece, mut written) = (vec![0; 1 << 20], 0);
    while let Ok(bytes) = one.write(&piece) {
        written += bytes;
        assert!(written < 64 << 20, "{written} bytes were taken");
    }
    assert!(net.network.traffic(ONE, TWO).held_bytes <= 1 << 20);
}
