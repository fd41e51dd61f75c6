//! What has a shape is written and read as Cap'n Proto writes and reads it, to the byte.

use capnp::message::{Reader, ReaderOptions, SegmentArray};
use capnp_rpc::rpc_capnp::{message, message_target, return_};
use kvorum_schema::client_capnp::key_value::{delete_results, transact_results};
use kvorum_schema::client_capnp::{get_result, write_result};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::convert::client::{read_stamp, write_stamp};

fn built(build: impl FnOnce(&mut Builder<HeapAllocator>)) -> Vec<u8> {
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(1 << 15));
    build(&mut message);
    capnp::serialize::write_message_to_words(&message)
}

fn built_get(call: &GetCall<'_>) -> Vec<u8> {
    built(|message| {
        let begun = begin_call(call.question, call.target, Method::Get, message);
        let mut params = begun.init_params().init_content().init_as::<get_params::Builder<'_>>();
        params.set_key(call.key);
        params.set_timeout_ms(call.timeout_ms);
        params.set_stale(call.stale);
    })
}

fn built_put(call: &PutCall<'_>) -> Vec<u8> {
    built(|message| {
        let begun = begin_call(call.question, call.target, Method::Put, message);
        let mut params = begun.init_params().init_content().init_as::<put_params::Builder<'_>>();
        write_stamp(call.stamp, params.reborrow().init_stamp());
        params.set_key(call.key);
        params.set_value(call.value);
        params.set_timeout_ms(call.timeout_ms);
    })
}

fn built_value(answer: &ValueAnswer<'_>) -> Vec<u8> {
    built(|message| {
        let content = begin_answer(answer.question, message).init_results().init_content();
        content.init_as::<get_results::Builder<'_>>().init_result().set_value(answer.value);
    })
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut written = b"what is there".to_vec();
    write(&mut written);
    written.split_off(13)
}

/// Checks that a message is what Cap'n Proto's reader finds in it.
fn read_as_any(message: &[u8], check: impl FnOnce(message::Reader<'_>)) {
    let segments = [message];
    let reader = Reader::new(SegmentArray::new(&segments), ReaderOptions::new());
    check(reader.get_root::<message::Reader<'_>>().unwrap());
}

fn check_get(call: &GetCall<'_>, message: &[u8]) {
    read_as_any(message, |root| {
        let Ok(message::Call(Ok(any))) = root.which() else { panic!("no call") };
        let Ok(message_target::ImportedCap(target)) = any.get_target().unwrap().which() else {
            panic!("no target")
        };
        let params = any.get_params().unwrap();
        assert!(params.get_cap_table().unwrap().is_empty());
        let params = params.get_content().get_as::<get_params::Reader<'_>>().unwrap();
        assert_eq!(any.get_interface_id(), key_value::Client::TYPE_ID);
        assert_eq!(any.get_method_id(), Method::Get.number());
        let (question, timeout_ms) = (any.get_question_id(), params.get_timeout_ms());
        let (stale, key) = (params.get_stale(), params.get_key().unwrap());
        assert_eq!(*call, GetCall { question, target, timeout_ms, stale, key });
    });
}

fn check_put(call: &PutCall<'_>, message: &[u8]) {
    read_as_any(message, |root| {
        let Ok(message::Call(Ok(any))) = root.which() else { panic!("no call") };
        let Ok(message_target::ImportedCap(target)) = any.get_target().unwrap().which() else {
            panic!("no target")
        };
        let params = any.get_params().unwrap();
        assert!(params.get_cap_table().unwrap().is_empty());
        let params = params.get_content().get_as::<put_params::Reader<'_>>().unwrap();
        assert_eq!(any.get_interface_id(), key_value::Client::TYPE_ID);
        assert_eq!(any.get_method_id(), Method::Put.number());
        let (question, timeout_ms) = (any.get_question_id(), params.get_timeout_ms());
        let stamp = read_stamp(params.get_stamp().unwrap());
        let (key, value) = (params.get_key().unwrap(), params.get_value().unwrap());
        assert_eq!(*call, PutCall { question, target, timeout_ms, stamp, key, value });
    });
}

fn check_value(answer: &ValueAnswer<'_>, message: &[u8]) {
    read_as_any(message, |root| {
        let Ok(message::Return(Ok(any))) = root.which() else { panic!("no answer") };
        let Ok(return_::Results(Ok(results))) = any.which() else { panic!("no results") };
        let results = results.get_content().get_as::<get_results::Reader<'_>>().unwrap();
        let Ok(get_result::Value(Ok(value))) = results.get_result().unwrap().which() else {
            panic!("no value")
        };
        assert!(any.get_no_finish_needed());
        assert_eq!(*answer, ValueAnswer { question: any.get_answer_id(), value });
    });
}

fn check_committed(answer: CommittedAnswer, message: &[u8]) {
    read_as_any(message, |root| {
        let Ok(message::Return(Ok(any))) = root.which() else { panic!("no answer") };
        let Ok(return_::Results(Ok(results))) = any.which() else { panic!("no results") };
        let results = results.get_content().get_as::<put_results::Reader<'_>>().unwrap();
        let which = results.get_result().unwrap().which();
        assert!(matches!(which, Ok(write_result::Committed(()))));
        assert!(any.get_no_finish_needed());
        assert_eq!(answer, CommittedAnswer { question: any.get_answer_id() });
    });
}

fn stamp() -> impl Strategy<Value = Option<Stamp>> {
    prop_oneof![
        Just(None),
        (1_u64.., any::<u64>(), any::<u64>()).prop_map(|(client, sequence, answered_below)| {
            Some(Stamp { client: ClientId(client), sequence, answered_below })
        }),
    ]
}

proptest! {
    #[test]
    fn a_get_is_as_cap_n_proto_writes_it(
        (question, target, timeout_ms) in any::<(u32, u32, u32)>(),
        stale: bool,
        key in vec(any::<u8>(), 1..70),
    ) {
        let call = GetCall { question, target, timeout_ms, stale, key: &key };
        let message = built_get(&call);
        prop_assert_eq!(&written(|to| call.write(to)), &message);
        prop_assert_eq!(GetCall::read(&message[8..]), Some(call));
        prop_assert_eq!(PutCall::read(&message[8..]), None);
        prop_assert_eq!(ValueAnswer::read(&message[8..]), None);
    }

    #[test]
    fn a_put_is_as_cap_n_proto_writes_it(
        (question, target, timeout_ms) in any::<(u32, u32, u32)>(),
        stamp in stamp(),
        key in vec(any::<u8>(), 1..70),
        value in vec(any::<u8>(), 1..300),
    ) {
        let call = PutCall { question, target, timeout_ms, stamp, key: &key, value: &value };
        let message = built_put(&call);
        prop_assert_eq!(&written(|to| call.write(to)), &message);
        prop_assert_eq!(PutCall::read(&message[8..]), Some(call));
        prop_assert_eq!(GetCall::read(&message[8..]), None);
    }

    #[test]
    fn a_value_is_as_cap_n_proto_writes_it(question: u32, value in vec(any::<u8>(), 1..300)) {
        let answer = ValueAnswer { question, value: &value };
        let message = built_value(&answer);
        prop_assert_eq!(&written(|to| answer.write(to)), &message);
        prop_assert_eq!(ValueAnswer::read(&message[8..]), Some(answer));
        prop_assert_eq!(CommittedAnswer::read(&message[8..]), None);
    }

    /// Whatever has become of a message: if it still has the shape, it says what is read.
    #[test]
    fn what_has_the_shape_says_what_is_read(
        key in vec(any::<u8>(), 1..20),
        value in vec(any::<u8>(), 1..20),
        which in 0..4_u8,
        flips in vec((any::<prop::sample::Index>(), 0..8_u8), 1..3),
        cut in 0..3_usize,
    ) {
        let (key, value) = (key.as_slice(), value.as_slice());
        let stamp = Some(Stamp { client: ClientId(1), sequence: 2, answered_below: 3 });
        let (question, target, timeout_ms) = (4, 5, 6);
        let mut message = match which {
            0 => built_get(&GetCall { question, target, timeout_ms, stale: false, key }),
            1 => built_put(&PutCall { question, target, timeout_ms, stamp, key, value }),
            2 => built_value(&ValueAnswer { question, value }),
            _ => written(|to| CommittedAnswer { question }.write(to)),
        };
        let mut message = message.split_off(8);
        for (at, bit) in flips {
            let at = at.index(message.len());
            message[at] ^= 1 << bit;
        }
        message.truncate(message.len().saturating_sub(8 * cut));
        if let Some(call) = GetCall::read(&message) {
            check_get(&call, &message);
        }
        if let Some(call) = PutCall::read(&message) {
            check_put(&call, &message);
        }
        if let Some(answer) = ValueAnswer::read(&message) {
            check_value(&answer, &message);
        }
        if let Some(answer) = CommittedAnswer::read(&message) {
            check_committed(answer, &message);
        }
    }
}

/// Whichever write it answers, by its words nobody can tell.
#[test]
fn all_writes_are_acknowledged_alike() {
    let of_put = written(|to| CommittedAnswer { question: 7 }.write(to));
    let of_delete = built(|message| {
        let content = begin_answer(7, message).init_results().init_content();
        content.init_as::<delete_results::Builder<'_>>().init_result().set_committed(());
    });
    let of_transact = built(|message| {
        let content = begin_answer(7, message).init_results().init_content();
        content.init_as::<transact_results::Builder<'_>>().init_result().set_committed(());
    });
    assert_eq!(of_put, of_delete);
    assert_eq!(of_put, of_transact);
    assert_eq!(CommittedAnswer::read(&of_put[8..]), Some(CommittedAnswer { question: 7 }));
}

fn built_failures(question: u32, failure: Failure) -> [Vec<u8>; 2] {
    let told = Told::Failure(failure);
    let of_get = built(|message| {
        let content = begin_answer(question, message).init_results().init_content();
        let result = content.init_as::<get_results::Builder<'_>>().init_result();
        write_failure(&told, result.init_failed());
    });
    let of_delete = built(|message| {
        let content = begin_answer(question, message).init_results().init_content();
        let result = content.init_as::<delete_results::Builder<'_>>().init_result();
        write_failure(&told, result.init_failed());
    });
    [of_get, of_delete]
}

#[test]
fn only_an_overloaded_server_answers_like_one() {
    for question in [0, 7, u32::MAX] {
        for message in built_failures(question, Failure::Overloaded) {
            let read = OverloadedAnswer::read(&message[8..]);
            assert_eq!(read, Some(OverloadedAnswer { question }));
            assert_eq!(CommittedAnswer::read(&message[8..]), None);
        }
        let others = [
            Failure::SessionExpired,
            Failure::StaleSequence,
            Failure::SnapshotExpired,
            Failure::Unavailable { reason: String::new() },
            Failure::Conflict { key: "key".into() },
        ];
        for message in others.into_iter().flat_map(|other| built_failures(question, other)) {
            assert_eq!(OverloadedAnswer::read(&message[8..]), None);
        }
    }
    let committed = written(|to| CommittedAnswer { question: 7 }.write(to));
    assert_eq!(OverloadedAnswer::read(&committed[8..]), None);
}

#[test]
fn a_message_of_another_size_has_no_shape() {
    let call =
        GetCall { question: 1, target: 2, timeout_ms: 3, stale: true, key: b"a key of 17 bytes" };
    let message = written(|to| call.write(to)).split_off(8);
    for len in 0..message.len() {
        assert_eq!(GetCall::read(&message[..len]), None, "{len} bytes");
    }
    let longer = [message.as_slice(), &[0; 8]].concat();
    assert_eq!(GetCall::read(&longer), None);
}
