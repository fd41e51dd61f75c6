//! Which of a load's keys are used how often.

use std::fmt;
use std::str::FromStr;

use kvorum_replication::random::Random;

/// The usual skew of a Zipf distribution in benchmarks (YCSB).
const ZIPFIAN_EXPONENT: f64 = 0.99;

/// Of so many hundred operations, if nothing else is said, go to the hot key.
const HOT_PERCENT: u8 = 50;

/// How operations spread over the keys: `uniform`, `zipfian`, `zipfian=1.2`, `hot` or `hot=90`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Each key as often as any other.
    Uniform,
    /// The n-th key with a weight of 1 / n^exponent.
    Zipfian {
        /// How much the first ones stand out.
        exponent: f64,
    },
    /// One key with so many percent of all operations, the rest uniformly among all.
    Hot {
        /// From 1 to 100.
        percent: u8,
    },
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = match text.split_once('=') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        match (name, number) {
            ("uniform", None) => Ok(Self::Uniform),
            ("zipfian", None) => Ok(Self::Zipfian { exponent: ZIPFIAN_EXPONENT }),
            ("zipfian", Some(number)) => match number.parse() {
                Ok(exponent) if (0.01..=10.0).contains(&exponent) => Ok(Self::Zipfian { exponent }),
                _ => Err(format!("`{number}` is no exponent from 0.01 to 10")),
            },
            ("hot", None) => Ok(Self::Hot { percent: HOT_PERCENT }),
            ("hot", Some(number)) => match number.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Hot { percent }),
                _ => Err(format!("`{number}` is no percentage from 1 to 100")),
            },
            _ => Err(format!("`{text}` is none of uniform, zipfian, zipfian=0.99, hot, hot=50")),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipfian { exponent } => write!(f, "zipfian={exponent}"),
            Self::Hot { percent } => write!(f, "hot={percent}"),
        }
    }
}

/// Draws numbers below a bound from a distribution.
#[derive(Debug)]
pub(super) enum Dice {
    Uniform { keys: u64 },
    Zipfian(Zipfian),
    Hot { keys: u64, percent: u8 },
}

impl Dice {
    pub(super) fn new(distribution: Distribution, keys: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { keys },
            Distribution::Zipfian { exponent } => Self::Zipfian(Zipfian::new(keys, exponent)),
            Distribution::Hot { percent } => Self::Hot { keys, percent },
        }
    }

    pub(super) fn throw(&self, random: &mut Random) -> u64 {
        match self {
            Self::Uniform { keys } => random.below(*keys),
            Self::Zipfian(zipfian) => zipfian.throw(random),
            Self::Hot { percent, .. } if random.below(100) < u64::from(*percent) => 0,
            Self::Hot { keys, .. } => random.below(*keys),
        }
    }
}

/// Draws from a Zipf distribution by rejection-inversion (Hörmann and Derflinger 1996): without a
/// table, and with hardly more than one try.
#[derive(Debug)]
pub(super) struct Zipfian {
    keys: u64,
    exponent: f64,
    /// The integral of the weights up to half behind the first, less the weight of the first.
    from: f64,
    /// And up to half behind the last.
    to: f64,
    /// So near to the number below it needs no further look.
    near: f64,
}

impl Zipfian {
    #[expect(clippy::cast_precision_loss, reason = "who draws from 2^52 keys sees no difference")]
    fn new(keys: u64, exponent: f64) -> Self {
        let mut zipfian = Self { keys, exponent, from: 0.0, to: 0.0, near: 0.0 };
        zipfian.from = zipfian.integral(1.5) - 1.0;
        zipfian.to = zipfian.integral(keys as f64 + 0.5);
        zipfian.near = 2.0 - zipfian.inverse(zipfian.integral(2.5) - zipfian.weight(2.0));
        zipfian
    }

    #[expect(clippy::cast_precision_loss, reason = "who draws from 2^52 keys sees no difference")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    fn throw(&self, random: &mut Random) -> u64 {
        loop {
            let at = self.to + fraction(random) * (self.from - self.to);
            let exact = self.inverse(at);
            let rank = exact.round().clamp(1.0, self.keys as f64);
            if rank - exact <= self.near || at >= self.integral(rank + 0.5) - self.weight(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn weight(&self, rank: f64) -> f64 {
        rank.powf(-self.exponent)
    }

    fn integral(&self, rank: f64) -> f64 {
        let log = rank.ln();
        // (rank^(1 - exponent) - 1) / (1 - exponent), which is the logarithm if that is zero.
        let scaled = (1.0 - self.exponent) * log;
        if scaled.abs() < 1e-9 { log } else { scaled.exp_m1() / scaled * log }
    }

    fn inverse(&self, integral: f64) -> f64 {
        let scaled = ((1.0 - self.exponent) * integral).max(-1.0);
        let log = if scaled.abs() < 1e-9 { integral } else { scaled.ln_1p() / scaled * integral };
        log.exp()
    }
}

/// From 0 to below 1.
#[expect(clippy::cast_precision_loss, reason = "it is cut to as many bits as a float has")]
pub(super) fn fraction(random: &mut Random) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (random.next_u64() >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of so many keys comes in so many throws.
    fn counts(distribution: Distribution, keys: u64, throws: u32) -> Vec<u32> {
        let dice = Dice::new(distribution, keys);
        let mut random = Random::new(11);
        let mut counts = vec![0; usize::try_from(keys).unwrap()];
        for _ in 0..throws {
            counts[usize::try_from(dice.throw(&mut random)).unwrap()] += 1;
        }
        counts
    }

    #[track_caller]
    fn check(count: u32, expected: f64) {
        // Five standard deviations: the seed is fixed, and another one would hardly be off either.
        let off = 5.0 * expected.sqrt() + 1.0;
        assert!((f64::from(count) - expected).abs() < off, "{count} instead of {expected}");
    }

    #[test]
    fn uniform_is_even() {
        for count in counts(Distribution::Uniform, 20, 200_000) {
            check(count, 10_000.0);
        }
    }

    #[test]
    fn zipfian_weighs_each_rank_by_its_power() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let counts = counts(Distribution::Zipfian { exponent }, 100, 200_000);
            let weight = |rank: usize| (rank as f64).powf(-exponent);
            let whole: f64 = (1..=100).map(weight).sum();
            for (index, count) in counts.into_iter().enumerate() {
                check(count, 200_000.0 * weight(index + 1) / whole);
            }
        }
    }

    #[test]
    fn zipfian_over_very_many_keys_stays_among_them() {
        let dice = Dice::new(Distribution::Zipfian { exponent: 0.99 }, 1 << 40);
        let mut random = Random::new(3);
        let draws: Vec<u64> = (0..10_000).map(|_| dice.throw(&mut random)).collect();
        assert!(draws.iter().all(|draw| *draw < 1 << 40));
        assert!(draws.iter().any(|draw| *draw > 1 << 32), "no rare key came");
        assert!(draws.contains(&0), "the most frequent key never came");
        assert_eq!(counts(Distribution::Zipfian { exponent: 0.99 }, 1, 100), [100]);
    }

    #[test]
    fn the_hot_key_has_its_share() {
        let counts = counts(Distribution::Hot { percent: 90 }, 10, 100_000);
        check(counts[0], 91_000.0);
        for count in &counts[1..] {
            check(*count, 1_000.0);
        }
    }

    #[test]
    fn distributions_are_read_and_printed() {
        for (text, expected) in [
            ("uniform", Ok("uniform")),
            ("zipfian", Ok("zipfian=0.99")),
            ("zipfian=1.2", Ok("zipfian=1.2")),
            ("hot", Ok("hot=50")),
            ("hot=100", Ok("hot=100")),
            ("hot=0", Err("`0` is no percentage from 1 to 100")),
            ("zipfian=x", Err("`x` is no exponent from 0.01 to 10")),
            ("zipfian=NaN", Err("`NaN` is no exponent from 0.01 to 10")),
            ("cold", Err("`cold` is none of uniform, zipfian, zipfian=0.99, hot, hot=50")),
        ] {
            let read = text.parse::<Distribution>().map(|read| read.to_string());
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned));
        }
    }
}
