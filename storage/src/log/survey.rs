//! Reads a log that nobody has open, from end to end, whatever is wrong with it, and changes
//! nothing.
//!
//! Opening stops at the first thing that is wrong. A survey names it, looks for the next good frame
//! behind it, and goes on there, so that all damage is found in one pass, and so is every record
//! that can still be read.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::file::{ALIGNMENT_MAX, FILE_HEADER_BYTES, FileHeader, Name, alignments};
use super::files::Listing;
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, IDENTITY_AT, Records};
use super::reader::{FrameReader, Step};
use super::replay::{ReplayedRecord, TornTail};
use super::{Position, tail};
use crate::codec::{Place, Reader};
use crate::error::{Error, Result};
use crate::planted::Planted;
use crate::vfs::{OpenMode, Vfs};

/// What a survey comes upon.
#[derive(Clone, Debug)]
pub enum LogItem {
    /// A record that can be read.
    Record(ReplayedRecord),
    /// Something that opening would refuse.
    Damage(LogDamage),
    /// The remains of a last write that a crash tore. Opening cuts them.
    Torn(TornTail),
}

/// Damage in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// The file that lies, or is missing.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// The records that cannot be read because of it. Empty if it hit nothing that is needed.
    pub lost: Range<u64>,
    /// Whether more may be lost behind them: nobody knows how far the log went.
    pub open_ended: bool,
}

/// How much of a log was read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogExtent {
    /// Log files.
    pub files: usize,
    /// Their lengths.
    pub bytes: u64,
    /// The part of these that good frames fill.
    pub frame_bytes: u64,
    /// Good frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// The position of the first record, or of the one to come in a log without records.
    pub first: Option<Position>,
    /// The position of the last record that can be read.
    pub last: Position,
}

/// Goes through a log.
pub struct LogSurvey {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    files: VecDeque<Found>,
    reader: Option<(FrameReader, FileHeader)>,
    /// Where the frame stands that `records` come from.
    frame_at: u64,
    records: Records,
    /// The position that comes next, once one is known.
    next: Option<u64>,
    /// How long the file at hand is, if somebody has cut it.
    cut: Option<u64>,
    /// A file before could not be read at all, so that a gap is already spoken of.
    explained: bool,
    pending: VecDeque<LogItem>,
    extent: LogExtent,
}

/// A file of the log, and its header if that is good or can be proven.
struct Found {
    number: u64,
    header: Option<FileHeader>,
    /// What is wrong with the header.
    damage: Option<String>,
    /// How long the file is, if that is less than it was.
    cut: Option<u64>,
}

impl LogSurvey {
    /// Begins at the oldest file in the directory.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self> {
        let listing = match Listing::read(&*vfs, dir) {
            // Whoever asks sees that there are no files.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Listing::default()
            }
            listing => listing?,
        };
        let mut survey = Self {
            dir: dir.to_path_buf(),
            files: VecDeque::new(),
            reader: None,
            frame_at: 0,
            records: Records::default(),
            next: None,
            cut: None,
            explained: false,
            pending: VecDeque::new(),
            extent: LogExtent::default(),
            vfs,
        };
        for number in listing.live() {
            let found = survey.find(number)?;
            survey.files.push_back(found);
        }
        if let Some(number) = listing.missing_last() {
            survey.missing(number, "the log's live files are gone".to_owned(), true);
        }
        Ok(survey)
    }

    /// The next thing in the log; none at its end. An error means that reading failed, not that
    /// what was read is wrong.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and then must not go on")]
    pub fn next(&mut self) -> Result<Option<LogItem>> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Ok(Some(item));
            }
            if let Some(record) = self.next_of_frame() {
                return Ok(Some(LogItem::Record(record)));
            }
            if !self.next_frame()? && self.pending.is_empty() {
                return Ok(None);
            }
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn extent(&self) -> &LogExtent {
        &self.extent
    }

    /// The file and the frame that the last record came from.
    #[must_use]
    pub fn place(&self) -> Option<(PathBuf, u64)> {
        let (reader, _) = self.reader.as_ref()?;
        Some((reader.path().to_path_buf(), self.frame_at))
    }

    fn find(&self, number: u64) -> Result<Found> {
        match FileHeader::read_with_length(&*self.vfs, &self.dir, number) {
            Ok((header, len)) => {
                let cut = (len < header.capacity).then_some(len);
                Ok(Found { number, header: Some(header), damage: None, cut })
            }
            Err(Error::Corrupt { what, .. }) => {
                let header = self.prove(number)?;
                Ok(Found { number, header, damage: Some(what.into_owned()), cut: None })
            }
            Err(error) => Err(error),
        }
    }

    /// The header of a file whose header is damaged, by what its first frame says.
    fn prove(&self, number: u64) -> Result<Option<FileHeader>> {
        let path = Name::Live(number).path(&self.dir);
        let file = self.vfs.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
        // The first frame begins somewhere in the first page, or right behind it.
        let mut bytes = [0; ALIGNMENT_MAX + FRAME_HEADER_BYTES];
        let count = file.read_at(&mut bytes, 0).map_err(Error::io("read", &path))?;
        let Some(header) = bytes.get(..FILE_HEADER_BYTES.min(count)) else { return Ok(None) };
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        let proven = alignments().find_map(|alignment: u64| {
            let at = (FILE_HEADER_BYTES as u64).next_multiple_of(alignment.max(1));
            let frame = bytes[..count].get(usize::try_from(at).ok()?..)?.first_chunk()?;
            let identity = Reader::new(&frame[IDENTITY_AT..]).u64().ok()?;
            let frame = FrameHeader::decode(frame, Place { file: identity, offset: at })?;
            FileHeader::prove(number, header, identity, frame.first, len)
        });
        Ok(proven)
    }

    fn next_of_frame(&mut self) -> Option<ReplayedRecord> {
        match self.records.next() {
            Ok(Some((position, kind, payload))) => {
                self.extent.records += 1;
                self.extent.last = Position(position);
                Some(ReplayedRecord { position: Position(position), kind, payload })
            }
            Ok(None) => None,
            Err(malformed) => {
                // The checksum was right, so that a writer got it wrong.
                let (first, end) = (self.records.next_position(), self.next.unwrap_or_default());
                self.records = Records::default();
                if let Some((file, offset)) = self.place() {
                    let what = format!("a good frame of bad records: {malformed}");
                    self.damage(file, offset, what, first..end);
                }
                None
            }
        }
    }

    /// Goes to the next good frame; whether there is one. Speaks of all that is wrong on the way.
    fn next_frame(&mut self) -> Result<bool> {
        loop {
            let Some((mut reader, header)) = self.reader.take() else {
                if !self.begin_file()? {
                    return Ok(false);
                }
                continue;
            };
            let known_end = self.files.front().and_then(|next| next.header).map(|next| next.first);
            if known_end.is_some_and(|end| reader.next_position() >= end) {
                self.end_file(&reader, known_end);
                self.note_cut(&header, reader.offset(), false);
                continue;
            }
            match reader.step() {
                Ok(Step::Frame { offset, header: frame }) if frame.is_seal() => {
                    self.extent.frames += 1;
                    self.extent.frame_bytes += frame.frame_bytes();
                    self.end_sealed(&header, offset);
                }
                Ok(Step::Frame { offset, header: frame }) => {
                    let payload = Bytes::copy_from_slice(reader.payload(offset, frame)?);
                    self.take(offset, frame, payload);
                    self.reader = Some((reader, header));
                    return Ok(true);
                }
                Ok(Step::Nothing) => {
                    if self.go_on(&mut reader, header, known_end, None)? {
                        self.reader = Some((reader, header));
                    }
                }
                Err(Error::Corrupt { what, .. }) => {
                    if self.go_on(&mut reader, header, known_end, Some(what.into_owned()))? {
                        self.reader = Some((reader, header));
                    }
                }
                Err(error) => return Err(error),
            }
            if !self.pending.is_empty() {
                return Ok(false);
            }
        }
    }

    fn take(&mut self, offset: u64, frame: FrameHeader, payload: Bytes) {
        self.frame_at = offset;
        self.extent.frames += 1;
        self.extent.frame_bytes += frame.frame_bytes();
        self.extent.first.get_or_insert(Position(frame.first));
        self.next = Some(frame.next());
        self.records = Records::new(frame, payload);
    }

    /// Opens the next file that can be read; false if there is none.
    fn begin_file(&mut self) -> Result<bool> {
        let Some(found) = self.files.pop_front() else { return Ok(false) };
        let path = Name::Live(found.number).path(&self.dir);
        self.extent.files += 1;
        let len = super::files::length(&*self.vfs, &path)?;
        self.extent.bytes = self.extent.bytes.saturating_add(len);
        if let Some(what) = found.damage {
            let lost = match found.header {
                Some(_) => 0..0,
                None => self.lost_with_file(),
            };
            let open_ended = found.header.is_none() && self.files.is_empty();
            let what = match found.header {
                Some(_) => format!("{what}; its frames prove what it said"),
                None => what,
            };
            self.pending.push_back(LogItem::Damage(LogDamage {
                file: path,
                offset: 0,
                what,
                lost,
                open_ended,
            }));
        }
        self.explained = found.header.is_none();
        if let Some(header) = found.header {
            self.extent.first.get_or_insert(Position(header.first));
            self.check_start(&header);
            self.next = Some(header.first);
            self.cut = found.cut;
            self.reader = Some((
                FrameReader::open(&*self.vfs, &self.dir, header, Planted::default())?,
                header,
            ));
        }
        self.check_number(found.number);
        Ok(true)
    }

    /// The records that are lost with a file that cannot be read, as far as its neighbours tell.
    fn lost_with_file(&self) -> Range<u64> {
        let end = self.files.iter().find_map(|found| found.header).map(|header| header.first);
        let first = self.next.or(end).unwrap_or(1);
        first..end.unwrap_or(first).max(first)
    }

    /// Whether a file begins where the one before it ended.
    fn check_start(&mut self, header: &FileHeader) {
        let Some(next) = self.next.filter(|next| *next != header.first && !self.explained) else {
            return;
        };
        let path = Name::Live(header.number).path(&self.dir);
        let what = format!("begins with record {}, where {next} was to come", header.first);
        self.damage(path, 0, what, next..header.first.max(next));
    }

    /// Whether the file with the next number is there.
    fn check_number(&mut self, number: u64) {
        let Some(following) = self.files.front().map(|found| found.number) else { return };
        if following != number.saturating_add(1) {
            let what = match following - number {
                2 => "is missing".to_owned(),
                gap => format!("is missing, and so are the {} files after it", gap - 2),
            };
            self.missing(number + 1, what, false);
        }
    }

    fn missing(&mut self, number: u64, what: String, open_ended: bool) {
        let damage = LogDamage {
            file: Name::Live(number).path(&self.dir),
            offset: 0,
            what,
            lost: 0..0,
            open_ended,
        };
        self.pending.push_back(LogItem::Damage(damage));
    }

    /// A file that says that another one follows.
    fn end_sealed(&mut self, header: &FileHeader, offset: u64) {
        self.note_cut(header, offset, false);
        if self.files.is_empty() {
            let what = "is missing: the file before it says that it was there".to_owned();
            self.missing(header.number + 1, what, true);
        }
    }

    /// A file that somebody has cut: whether anything was behind the cut its frames may tell.
    fn note_cut(&mut self, header: &FileHeader, offset: u64, open_ended: bool) {
        let Some(len) = self.cut.take() else { return };
        if let Error::Corrupt { file, what, .. } = header.cut(&self.dir, len) {
            let next = self.next.unwrap_or(header.first);
            let what = format!("{what}; its frames end at byte {offset}");
            let damage = LogDamage { file, offset: len, what, lost: next..next, open_ended };
            self.pending.push_back(LogItem::Damage(damage));
        }
    }

    /// A file that has been read to the first position of the one after it.
    fn end_file(&mut self, reader: &FrameReader, end: Option<u64>) {
        if let Some(end) = end.filter(|end| reader.next_position() > *end) {
            let what = format!("holds records from {end} on that the next file holds too");
            self.damage(reader.path().to_path_buf(), reader.offset(), what, 0..0);
            // Said once is enough.
            self.next = Some(end);
        }
    }

    /// Where no good frame stands: the end, or damage, behind which to go on. Whether there is
    /// more in this file.
    fn go_on(
        &mut self,
        reader: &mut FrameReader,
        header: FileHeader,
        known_end: Option<u64>,
        why: Option<String>,
    ) -> Result<bool> {
        let (offset, next) = (reader.offset(), reader.next_position());
        let path = reader.path().to_path_buf();
        let is_last = self.files.is_empty();
        let why = match why {
            Some(why) => why,
            None if is_last => match tail::remains(reader, header) {
                Ok(end) => {
                    if self.cut.is_some() {
                        self.note_cut(&header, offset, true);
                    } else if end > offset {
                        let torn = TornTail { file: path, offset, bytes: end - offset };
                        self.pending.push_back(LogItem::Torn(torn));
                    }
                    return Ok(false);
                }
                Err(Error::Corrupt { what, .. }) => what.into_owned(),
                Err(error) => return Err(error),
            },
            None => format!("no frame of position {next}"),
        };
        let found = tail::search(reader, header, offset + 1)?;
        let found = found.filter(|(_, frame)| {
            frame.first >= next && known_end.is_none_or(|end| frame.first < end)
        });
        match found {
            Some((at, frame)) => {
                self.damage(path, offset, why, next..frame.first);
                reader.resume(at, frame.first);
                self.next = Some(frame.first);
                Ok(true)
            }
            // The header of the file behind is unreadable, and says so itself.
            None if known_end.is_none() && !is_last => Ok(false),
            None => {
                self.damage(path, offset, why, next..known_end.unwrap_or(next));
                if let (None, Some(LogItem::Damage(damage))) = (known_end, self.pending.back_mut())
                {
                    damage.open_ended = true;
                }
                self.next = known_end.or(self.next);
                Ok(false)
            }
        }
    }

    fn damage(&mut self, file: PathBuf, offset: u64, what: String, lost: Range<u64>) {
        let damage = LogDamage { file, offset, what, lost, open_ended: false };
        self.pending.push_back(LogItem::Damage(damage));
    }
}

impl std::fmt::Debug for LogSurvey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSurvey").field("dir", &self.dir).finish_non_exhaustive()
    }
}
