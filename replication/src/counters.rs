//! Counters with names, for `kvorum status` and for the tests that compare with the textbook.

/// Declares a struct of counters that lists itself in the order of its declaration.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            $(pub(super) $field: u64,)*
        }

        impl $name {
            pub(super) fn list(&self) -> alloc::vec::Vec<(&'static str, u64)> {
                alloc::vec![$((stringify!($field), self.$field),)*]
            }
        }
    };
}

pub(crate) use counters;
