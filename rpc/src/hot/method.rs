//! The store's methods, as the schema numbers them.

/// A method of `KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    OpenSession,
    Get,
    Put,
    Delete,
    Transact,
    Scan,
    GetMany,
}

impl Method {
    pub(super) fn number(self) -> u16 {
        match self {
            Self::OpenSession => 0,
            Self::Get => 1,
            Self::Put => 2,
            Self::Delete => 3,
            Self::Transact => 4,
            Self::Scan => 5,
            Self::GetMany => 6,
        }
    }

    pub(super) fn of(number: u16) -> Option<Self> {
        let all = [
            Self::OpenSession,
            Self::Get,
            Self::Put,
            Self::Delete,
            Self::Transact,
            Self::Scan,
            Self::GetMany,
        ];
        all.into_iter().find(|method| method.number() == number)
    }
}
