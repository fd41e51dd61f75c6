//! Whole segments: what was written is read in all ways, and what makes no sense is refused.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::Direction;
use crate::amount;
use crate::codec::{Place, checksum};
use crate::error::Error;
use crate::key::{Kind, Tag, VALUE_BYTES_MAX, compare};
use crate::planted::Planted;
use crate::vfs::{MemoryVfs, OpenMode, Vfs};

type Row = (Vec<u8>, Tag, Vec<u8>);

const DIR: &str = "/segments";
const ID: u64 = 7;

fn put(key: &[u8], sequence: u64, value: &[u8]) -> Row {
    (key.to_vec(), Tag::new(sequence, Kind::Put), value.to_vec())
}

fn options(block_bytes: usize, compression: Compression) -> SegmentOptions {
    let planted = Planted::default();
    SegmentOptions { block_bytes, filter_bits_per_key: 10, compression, planted }
}

/// A disk with a segment of these rows, and what the manifest would say of it.
fn write(rows: &[Row], options: SegmentOptions) -> (MemoryVfs, SegmentMeta) {
    let disk = MemoryVfs::new();
    disk.create_dir_all(DIR.as_ref()).unwrap();
    let mut writer = SegmentWriter::create(&disk, DIR.as_ref(), ID, options).unwrap();
    for (key, tag, value) in rows {
        writer.add(key, *tag, value).unwrap();
    }
    let meta = writer.finish().unwrap();
    (disk, meta)
}

fn open(disk: &MemoryVfs, meta: &SegmentMeta, cache_bytes: usize) -> Arc<Segment> {
    let cache = Arc::new(BlockCache::new(cache_bytes));
    let planted = Planted::default();
    Arc::new(Segment::open(disk, DIR.as_ref(), meta.clone(), &cache, planted).unwrap())
}

/// The segment's file with other bytes.
fn replace(disk: &MemoryVfs, bytes: &[u8]) {
    let path = path_of(DIR.as_ref(), ID);
    disk.remove(&path).unwrap();
    disk.open(&path, OpenMode::Create).unwrap().write_at(bytes, 0).unwrap();
}

fn content(disk: &MemoryVfs) -> Vec<u8> {
    let path = path_of(DIR.as_ref(), ID);
    disk.open(&path, OpenMode::Read).unwrap().map().unwrap().to_vec()
}

fn current(cursor: &SegmentCursor) -> Option<Row> {
    assert_eq!(cursor.value(), cursor.value_ref());
    cursor.is_valid().then(|| (cursor.key().to_vec(), cursor.tag(), cursor.value().to_vec()))
}

fn walk(segment: &Arc<Segment>, check: Check, direction: Direction) -> Vec<Row> {
    let mut cursor = SegmentCursor::new(Arc::clone(segment), check);
    match direction {
        Direction::Forwards => cursor.seek(None).unwrap(),
        Direction::Backwards => cursor.seek_before(None).unwrap(),
    }
    let mut rows = Vec::new();
    while let Some(row) = current(&cursor) {
        rows.push(row);
        match direction {
            Direction::Forwards => cursor.next().unwrap(),
            Direction::Backwards => cursor.previous().unwrap(),
        }
    }
    rows
}

/// Looks for a key and its versions in all ways.
fn look_up(segment: &Arc<Segment>, rows: &[Row], key: &[u8], sequence: u64) {
    let to = (key, Tag::newest_of(sequence));
    let is_before = |row: &&Row| compare((&row.0, row.1), to).is_lt();
    let at_or_after = rows.iter().find(|row| !is_before(row));
    let visible = at_or_after.filter(|row| row.0 == key).map(|row| (row.1, row.2.clone()));
    let found = segment.get(key, hash(key), sequence).unwrap();
    assert_eq!(found.map(|(tag, value)| (tag, value.to_vec())), visible, "{key:?} {sequence}");
    let found = segment.get_with(key, hash(key), sequence, |tag, value| (tag, value.to_vec()));
    assert_eq!(found.unwrap(), visible, "{key:?} {sequence}");

    let mut cursor = SegmentCursor::new(Arc::clone(segment), Check::Once);
    cursor.seek(Some(to)).unwrap();
    assert_eq!(current(&cursor).as_ref(), at_or_after, "{key:?} {sequence}");
    cursor.seek_before(Some(to)).unwrap();
    assert_eq!(current(&cursor).as_ref(), rows.iter().rfind(is_before), "{key:?} {sequence}");
}

fn salvage(disk: &MemoryVfs, meta: Option<SegmentMeta>) -> Vec<Row> {
    let path = path_of(DIR.as_ref(), ID);
    let mut salvage = Salvage::new(&path, ID, content(disk).into(), meta);
    let mut rows = Vec::new();
    while let Some(piece) = salvage.next() {
        let Piece::Block(entries) = piece else { continue };
        rows.extend(entries.into_iter().map(|it| (it.key.to_vec(), it.tag, it.value.to_vec())));
    }
    rows
}

/// Everything there is to read, against the rows.
fn check(rows: &[Row], options: SegmentOptions, probes: &[(Vec<u8>, u64)]) {
    let (disk, meta) = write(rows, options);
    let segment = open(&disk, &meta, 1 << 20);
    assert_eq!(segment.check().unwrap().entries, rows.len() as u64);
    segment.check_frame().unwrap();
    for check in [Check::Once, Check::Always] {
        assert!(walk(&segment, check, Direction::Forwards) == rows);
        assert!(walk(&segment, check, Direction::Backwards).iter().eq(rows.iter().rev()));
    }
    for (key, sequence) in probes {
        look_up(&segment, rows, key, *sequence);
    }
    assert!(salvage(&disk, Some(meta)) == rows);
    // Without the footer, blocks are found by their checksums.
    let mut bytes = content(&disk);
    if bytes.len() < 100_000 {
        let end = bytes.len() - 1;
        bytes[end] ^= 1;
        replace(&disk, &bytes);
        assert!(salvage(&disk, None) == rows);
    }
}

const COMPRESSIONS: [Compression; 2] = [Compression::None, Compression::Lz4];

#[test]
#[cfg_attr(miri, ignore = "many MiB, compared byte by byte")]
fn the_longest_and_the_shortest_keys_and_values_are_read() {
    let long = vec![b'k'; crate::key::KEY_BYTES_MAX];
    let large = vec![b'v'; VALUE_BYTES_MAX];
    let rows = [
        put(b"", 9, &large),
        put(b"", 3, b""),
        put(b"k", 4, b"of a short key"),
        put(&long[1..], 4, b""),
        put(&long, 9, b"new"),
        put(&long, 8, &large),
        put(b"l", 2, b"last"),
    ];
    let probes: Vec<_> = rows.iter().map(|row| (row.0.clone(), row.1.sequence())).collect();
    for compression in COMPRESSIONS {
        check(&rows, options(256, compression), &probes);
    }
}

#[test]
fn versions_of_one_key_over_many_blocks_are_found() {
    let versions = amount(600, 40);
    let mut rows = vec![put(b"before", 1, b"")];
    rows.extend((1..=versions).rev().map(|number| put(b"key", 2 * number, &number.to_le_bytes())));
    rows.push(put(b"key\0", 1, b"behind"));
    let mut probes: Vec<_> =
        (0..2 * versions + 10).map(|sequence| (b"key".to_vec(), sequence)).collect();
    probes.extend([(b"before".to_vec(), 1), (b"key\0".to_vec(), 1), (b"ke".to_vec(), 5)]);
    check(&rows, options(64, Compression::None), &probes);
    // Two blocks by the number of entries alone.
    check(&rows, options(1 << 20, Compression::None), &probes);
}

#[test]
fn many_keys_that_begin_alike_are_found() {
    let mut rows = Vec::new();
    for tenant in ["a tenant with a long name/", "another tenant with a long name/", "z"] {
        for number in 0..amount(300_u32, 12) {
            let key = [tenant.as_bytes(), &(number * number).to_be_bytes()].concat();
            rows.push(put(&key, u64::from(number) + 1, &[b'v'; 20]));
        }
    }
    let mut probes: Vec<_> = rows.iter().map(|row| (row.0.clone(), 1000)).collect();
    probes.extend(rows.iter().map(|row| ([&row.0[..], b"!"].concat(), 1000)));
    probes.extend(rows.iter().map(|row| (row.0[..row.0.len() - 1].to_vec(), 1000)));
    for compression in COMPRESSIONS {
        check(&rows, options(256, compression), &probes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: amount(64, 1), ..ProptestConfig::default() })]
    #[test]
    fn what_was_written_is_read(
        keys in proptest::collection::btree_map("(a|b|\u{0}|word and word ){0,6}", 1u64..5, 1..60),
        probes in proptest::collection::vec(("(a|b|c|\u{0}|word and word ){0,6}", 0u64..6), 0..20),
        block_bytes in prop_oneof![Just(64_usize), Just(300), Just(1 << 20)],
        is_packed: bool,
    ) {
        let rows: Vec<Row> = keys
            .iter()
            .flat_map(|(key, versions)| (1..=*versions).rev().map(move |it| (key, it)))
            .map(|(key, it)| put(key.as_bytes(), it, &vec![b'v'; it as usize * 10]))
            .collect();
        let probes: Vec<_> =
            probes.into_iter().map(|(key, sequence)| (key.into_bytes(), sequence)).collect();
        check(&rows, options(block_bytes, COMPRESSIONS[usize::from(is_packed)]), &probes);
    }
}

/// Rows of which a few are in each block.
fn some_rows() -> Vec<Row> {
    (0..200_u32).map(|it| put(&(it * 7).to_be_bytes(), 3, &it.to_le_bytes().repeat(9))).collect()
}

/// A segment with one byte changed so that all checksums are right; none if they were not made so.
fn lie(content: &[u8], handle: Handle, at: usize, change: u8) -> Vec<u8> {
    let mut bytes = content.to_vec();
    let begin = usize::try_from(handle.offset).unwrap();
    let end = begin + handle.bytes as usize + 1;
    bytes[begin + at] ^= change;
    let place = Place { file: ID, offset: handle.offset };
    let sum = checksum(place, &bytes[begin..end]);
    bytes[end..end + 4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Whatever a writer may have got wrong in a block or its index: reads end, and what a check lets
/// pass hides nothing.
#[test]
#[cfg_attr(miri, ignore = "opens and reads thousands of segments, of which one shows Miri as much")]
fn bytes_that_lie_under_right_checksums_do_no_harm() {
    let rows = some_rows();
    let (disk, meta) = write(&rows, options(512, Compression::None));
    let content = content(&disk);
    let footer_at = content.len() - FOOTER_BYTES;
    let footer = Footer::decode(&content[footer_at..]).unwrap();
    let data = open(&disk, &meta, 0).data_handle(1).unwrap();
    for (handle, noticed_min) in [(data, 150), (footer.index, 150), (footer.properties, 100)] {
        let mut noticed = 0;
        for at in 0..handle.bytes as usize {
            for change in [1, 0x80, 0xff] {
                replace(&disk, &lie(&content, handle, at, change));
                let segment = open(&disk, &meta, 0);
                for (key, _, _) in rows.iter().step_by(29) {
                    let _ = segment.get(key, hash(key), 9);
                }
                let mut cursor = SegmentCursor::new(Arc::clone(&segment), Check::Once);
                if cursor.seek_before(None).is_ok() {
                    while cursor.is_valid() && cursor.previous().is_ok() {}
                }
                if cursor.seek(None).is_ok() {
                    while cursor.is_valid() && cursor.next().is_ok() {}
                }
                let salvaged = salvage(&disk, Some(meta.clone()));
                if let Err(error) = segment.check() {
                    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
                    noticed += 1;
                    continue;
                }
                // It is in a value or a tag, or a separator that is as good as the other.
                let rows = walk(&segment, Check::Always, Direction::Forwards);
                assert_eq!(rows, salvaged);
                assert_eq!(rows.len(), 200);
                for (key, tag, value) in rows {
                    let found = segment.get(&key, hash(&key), u64::MAX >> 1).unwrap();
                    assert_eq!(found, Some((tag, value.into())), "{at} {change}");
                }
            }
        }
        assert!(noticed >= noticed_min, "{noticed} at {}", handle.offset);
    }
}

/// The directory of a block must never hide an entry from look-ups.
#[test]
#[cfg_attr(miri, ignore = "opens and reads thousands of segments, of which one shows Miri as much")]
fn a_fingerprint_that_hides_an_entry_is_noticed() {
    let rows = some_rows();
    let (disk, meta) = write(&rows, options(512, Compression::None));
    let content = content(&disk);
    let segment = open(&disk, &meta, 0);
    let handle = segment.data_handle(1).unwrap();
    let block = &content[usize::try_from(handle.offset).unwrap()..][..handle.bytes as usize];
    let number_at = |at: usize| u32::from_le_bytes(*block[at..].first_chunk().unwrap()) as usize;
    let (prefix, entries) = (number_at(block.len() - 8), number_at(block.len() - 4) / 2);
    assert!(entries > 5);
    let fingerprints = block.len() - 8 - prefix - entries;
    let first = walk(&segment, Check::Once, Direction::Forwards)
        .iter()
        .position(|row| segment.block_of(&row.0, row.1).unwrap() == 1)
        .unwrap();
    for entry in 0..entries {
        for bit in 0..8 {
            replace(&disk, &lie(&content, handle, fingerprints + entry, 1 << bit));
            let segment = open(&disk, &meta, 0);
            let key = &rows[first + entry].0;
            assert_eq!(segment.get(key, hash(key), 9).unwrap(), None, "it lies");
            let error = segment.check().unwrap_err().to_string();
            assert!(error.contains("fingerprint"), "{error}");
        }
    }
}

/// Each bit of a small segment, in turn: reads give an error or the right answer, and a check fails.
#[test]
#[cfg_attr(miri, ignore = "opens and reads thousands of segments, of which one shows Miri as much")]
fn each_turned_bit_is_noticed() {
    let rows: Vec<Row> = some_rows().into_iter().take(24).collect();
    for compression in COMPRESSIONS {
        let (disk, meta) = write(&rows, options(256, compression));
        let whole = content(&disk);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let path = path_of(Path::new(DIR), ID);
            let Ok(segment) = Segment::of_bytes(&path, meta.clone(), bytes.into()) else {
                assert!(bit / 8 >= whole.len() - FOOTER_BYTES, "only of the footer at once");
                continue;
            };
            assert!(matches!(segment.check(), Err(Error::Corrupt { .. })), "{bit}");
            for (key, tag, value) in &rows {
                if let Ok(found) = segment.get(key, hash(key), 9) {
                    assert_eq!(found.unwrap(), (*tag, Bytes::copy_from_slice(value)), "{bit}");
                }
                let absent = [key, &b"!"[..]].concat();
                assert!(!matches!(segment.get(&absent, hash(&absent), 9), Ok(Some(_))), "{bit}");
            }
        }
    }
}

#[test]
fn a_block_of_another_version_is_refused() {
    let rows = some_rows();
    let (disk, meta) = write(&rows, options(512, Compression::None));
    let segment = open(&disk, &meta, 0);
    let handle = segment.data_handle(0).unwrap();
    // Its kind, from 0x20 to 0: a plain block of version 1.
    replace(&disk, &lie(&content(&disk), handle, handle.bytes as usize, 0x20));
    let segment = open(&disk, &meta, 0);
    let error = segment.get(&rows[0].0, hash(&rows[0].0), 9).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
}

/// What is decompressed is kept, and given again without decompressing.
#[test]
fn compressed_blocks_are_kept() {
    let rows = some_rows();
    let (disk, meta) = write(&rows, options(512, Compression::Lz4));
    let (kept, unkept) = (open(&disk, &meta, 1 << 20), open(&disk, &meta, 0));
    let hold = |segment: &Arc<Segment>| {
        let key = &rows[100].0;
        segment.get(key, hash(key), 9).unwrap().unwrap().1
    };
    let (a, b) = (hold(&kept), hold(&kept));
    assert_eq!(a.as_ptr(), b.as_ptr(), "one block in memory");
    let (a, b) = (hold(&unkept), hold(&unkept));
    assert_ne!(a.as_ptr(), b.as_ptr(), "two of them");
}

#[test]
fn names_are_read_back_and_other_files_are_left_alone() {
    let path = path_of(Path::new("/d"), 0x1F);
    assert_eq!(path, Path::new("/d/000000000000001f.segment"));
    assert_eq!(id_of("000000000000001f.segment"), Some(0x1F));
    for other in ["MANIFEST", "1f.segment", "+00000000000001f.segment", "x.segment", ""] {
        assert_eq!(id_of(other), None, "{other}");
    }
}

#[test]
fn a_kind_of_block_is_read_as_it_is_stored() {
    let known: Vec<u8> =
        (0..=u8::MAX).filter(|stored| BlockKind::from_stored(*stored).is_some()).collect();
    assert_eq!(known, [0x00, 0x01, 0x20, 0x21]);
    for stored in known {
        assert_eq!(BlockKind::from_stored(stored).unwrap().stored(), stored);
    }
}

#[test]
fn a_footer_is_as_long_as_it_says() {
    let handle = Handle { offset: 1, bytes: 2 };
    let (version, id) = (Version::Two, 7);
    let footer = Footer { version, id, filter: handle, properties: handle, index: handle };
    assert_eq!(footer.encode().len() + 4, FOOTER_BYTES);
}
