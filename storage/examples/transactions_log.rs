//! A bank under a log of its own: what it records there is all that is written. The store is given
//! what the records decide, and after a crash the records are replayed.
//!
//! `cargo run -p kvorum-storage --example transactions_log`

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Batch, Error, Maintained, Options, Position, Pressure, Result, Store};

/// Kinds of records: an owner's begin at 16.
const PREPARED: u8 = 16;
const COMMITTED: u8 = 17;

struct Bank {
    store: Store,
    /// Transfers that were prepared and not committed, oldest first, with the record that says so.
    prepared: Vec<(Position, u64, Transfer)>,
    /// The greatest number that a transfer has in the log.
    last_number: u64,
}

#[derive(Clone)]
struct Transfer {
    from: u8,
    to: u8,
    amount: u64,
}

impl Transfer {
    fn encode(&self, number: u64) -> Vec<u8> {
        let mut record = number.to_le_bytes().to_vec();
        record.extend([self.from, self.to]);
        record.extend(self.amount.to_le_bytes());
        record
    }

    fn decode(record: &Bytes) -> Option<(u64, Transfer)> {
        let (number, rest) = record.split_first_chunk::<8>()?;
        let ([from, to], amount) = rest.split_first_chunk::<2>()?;
        let amount = u64::from_le_bytes(amount.try_into().ok()?);
        Some((u64::from_le_bytes(*number), Transfer { from: *from, to: *to, amount }))
    }
}

impl Bank {
    fn open(dir: &Path) -> Result<Bank> {
        let (store, mut recovery) =
            Store::open_with_replay(Arc::new(RealVfs), dir, Options::default())?;
        let mut bank = Bank { store, prepared: Vec::new(), last_number: 0 };
        while let Some(record) = recovery.next()? {
            match record.kind {
                PREPARED => {
                    let (number, transfer) = Transfer::decode(&record.payload)
                        .ok_or_else(|| Error::invalid("a record that no bank wrote"))?;
                    bank.last_number = bank.last_number.max(number);
                    bank.prepared.push((record.position, number, transfer));
                }
                COMMITTED => {
                    let number = record.payload[..].try_into().map(u64::from_le_bytes);
                    let number =
                        number.map_err(|_| Error::invalid("a record that no bank wrote"))?;
                    bank.last_number = bank.last_number.max(number);
                    // Skipped by the store if it is in segments already.
                    bank.apply(number, record.position)?;
                }
                kind => return Err(Error::invalid(format!("a record of kind {kind}"))),
            }
            while bank.store.pressure() == Pressure::Stop
                && bank.store.maintain()? != Maintained::Nothing
            {}
        }
        Ok(bank)
    }

    /// The first step: durable before anything is answered.
    fn prepare(&mut self, transfer: Transfer) -> Result<u64> {
        self.last_number += 1;
        let record = transfer.encode(self.last_number);
        let position = self.store.log().append(PREPARED, &record)?;
        self.store.log().sync(position)?;
        self.prepared.push((position, self.last_number, transfer));
        Ok(self.last_number)
    }

    /// The second step, of any transfer that is prepared: one record, one sync.
    fn commit(&mut self, number: u64) -> Result<()> {
        if !self.prepared.iter().any(|(_, prepared, _)| *prepared == number) {
            return Err(Error::invalid(format!("transfer {number} is not prepared")));
        }
        let position = self.store.log().append(COMMITTED, &number.to_le_bytes())?;
        self.store.log().sync(position)?;
        self.apply(number, position)?;
        // Records before the oldest that is still prepared are needed no more, by us; the store
        // keeps them until what they say is in segments.
        let oldest = self.prepared.first().map_or(position.next(), |(position, ..)| *position);
        self.store.release(oldest);
        Ok(())
    }

    /// What the record at this position commits. Marks rise: here they are those positions.
    fn apply(&mut self, number: u64, position: Position) -> Result<()> {
        let Some(at) = self.prepared.iter().position(|(_, prepared, _)| *prepared == number) else {
            // It was prepared in a record that was released: what it did is in segments.
            return self.store.apply(position.0, position, &Batch::new());
        };
        let (_, _, transfer) = self.prepared.remove(at);
        let mut batch = Batch::new();
        let [from, to] = [transfer.from, transfer.to].map(|account| self.balance(account));
        batch.put([transfer.from], (from? - transfer.amount as i64).to_le_bytes());
        batch.put([transfer.to], (to? + transfer.amount as i64).to_le_bytes());
        // Nothing is written: the batch stands in the record.
        self.store.apply(position.0, position, &batch)
    }

    fn balance(&self, account: u8) -> Result<i64> {
        let value = self.store.get(&[account])?;
        Ok(value.and_then(|v| v[..].try_into().ok()).map_or(0, i64::from_le_bytes))
    }
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().map_err(Error::io("make", Path::new("a directory")))?;
    let mut bank = Bank::open(dir.path())?;
    for round in 0..100 {
        let number = bank.prepare(Transfer { from: 1, to: 2, amount: round })?;
        bank.commit(number)?;
    }
    let promised = bank.prepare(Transfer { from: 2, to: 3, amount: 5 })?;
    let later = bank.prepare(Transfer { from: 3, to: 1, amount: 0 })?;
    bank.commit(later)?;
    println!("transfer {promised} is prepared; the process ends here, without a word");
    drop(bank);

    let mut bank = Bank::open(dir.path())?;
    assert_eq!((bank.balance(1)?, bank.balance(2)?, bank.balance(3)?), (-4950, 4950, 0));
    assert_eq!(bank.prepared.len(), 1, "a promise is not forgotten");
    bank.commit(promised)?;
    assert_eq!((bank.balance(2)?, bank.balance(3)?), (4945, 5));
    // In segments, so that the next opening need not apply it again.
    bank.store.flush()?;
    drop(bank);
    let bank = Bank::open(dir.path())?;
    assert_eq!((bank.balance(1)?, bank.balance(2)?, bank.balance(3)?), (-4950, 4945, 5));
    println!("accounts 1, 2, 3: -4950, 4945, 5 after every restart");
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
