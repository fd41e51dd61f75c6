//! Bugs on purpose, each a known trap, so that what is to catch them can be seen to catch them.
//!
//! Without the feature `planted-bugs` there are none: a `Planted` takes no room, there is only one,
//! and its `has` is constantly false, so that a build for use contains none of it.

/// Declares the bugs of a room: name, word, trap and rule of each; and `Planted`, which is one of
/// them or none.
#[doc(hidden)]
#[macro_export]
macro_rules! planted_bugs {
    ($($name:ident => $word:literal, $trap:literal, $rule:literal;)*) => {
        /// A known trap, and the smallest mistake that falls into it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $(#[doc = $trap] $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What flags call it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The mistake, in a sentence.
            #[must_use]
            pub const fn trap(self) -> &'static str {
                match self {
                    $(Self::$name => $trap,)*
                }
            }

            /// The rule that it breaks.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => $rule,)*
                }
            }
        }

        /// Which bug there is, if any. By default none.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Planted {
            #[cfg(feature = "planted-bugs")]
            bug: Option<Bug>,
        }

        impl Planted {
            /// This bug and no other.
            #[cfg(feature = "planted-bugs")]
            #[must_use]
            pub const fn of(bug: Bug) -> Self {
                Self { bug: Some(bug) }
            }

            /// Whether it is this one.
            #[cfg(feature = "planted-bugs")]
            #[must_use]
            pub const fn has(self, bug: Bug) -> bool {
                matches!(self.bug, Some(planted) if planted as u8 == bug as u8)
            }

            /// Whether it is this one: this build has none.
            #[cfg(not(feature = "planted-bugs"))]
            #[must_use]
            pub const fn has(self, _: Bug) -> bool {
                false
            }
        }

        #[cfg(test)]
        mod tests {
            use super::*;

            #[cfg(not(feature = "planted-bugs"))]
            #[test]
            fn there_are_none_unless_asked_for() {
                assert_eq!(size_of::<Planted>(), 0);
                const { assert!(!Planted {}.has(Bug::ALL[0])) };
                assert!(!Bug::ALL.iter().any(|bug| Planted::default().has(*bug)));
            }

            #[cfg(feature = "planted-bugs")]
            #[test]
            fn there_is_the_one_asked_for() {
                for bug in Bug::ALL {
                    let found: &[Bug] = &[*bug];
                    let has = |planted: Planted| Bug::ALL.iter().filter(move |bug| planted.has(**bug));
                    assert!(has(Planted::of(*bug)).eq(found));
                    assert_eq!(has(Planted::default()).count(), 0);
                }
            }
        }
    };
}
