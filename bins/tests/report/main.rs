//! The report's page: what must be in it, and what must never be, whatever the run was.

mod sample;

use std::time::Duration;

use kvorum::lab::report::{Finding, JudgeVerdict, OperationPoint, PointEnding, Report, html};
use sample::{sample, violated};

/// How often it is there.
fn count(page: &str, what: &str) -> usize {
    page.matches(what).count()
}

/// What is between the tags of the body and before its scripts.
fn markup(page: &str) -> &str {
    let body = page.split_once("<body>").expect("there is a body").1;
    body.split_once("<script type=\"application/json\"").expect("there are slices").0
}

/// The words between tags, so that a test is not about the markup.
fn words(page: &str) -> String {
    let parts =
        markup(page).split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    parts.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// That every element is closed where it was opened: a browser would mend it, and show something
/// else than was meant.
#[track_caller]
fn assert_nested(page: &str) {
    let mut open = Vec::new();
    for tag in markup(page).split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.split_whitespace().next().unwrap_or_default();
        if let Some(closed) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "{tag}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn a_run_has_its_verdict_its_charts_and_its_tables() {
    let report = sample(60);
    let page = html(&report);
    assert_nested(&page);
    let text = words(&page);
    assert!(text.starts_with("2pc under kill, pause, partition Every promise was kept"), "{text}");
    for expected in [
        "kvorum-lab run --protocol 2pc --clients 16",
        "replicas 3",
        "began 2026-11-21 05:46:40 UTC",
        "holds linearizable 41,231 operations",
        "Operations a second ok refused unknown no write acknowledged",
        "Time until done p50 p99 max",
        "Faults, by member delay fail point kill partition pause",
        "coordinator replica 1 replica 2 replica 3",
        "operation ok refused unknown ok: p50 p90 p99 max get",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    // One row for each member; what was done to several is in the row of each.
    assert_eq!(count(&page, "class=\"plot lane\""), 4);
    let struck = report.faults.iter().map(|fault| match fault.whom.len() {
        0 => report.members.len(),
        some => some,
    });
    assert_eq!(count(&page, "<i class=\"fault "), struck.sum::<usize>());
    assert_eq!(count(&page, "<path class=\"p50\""), 1);
    assert!(count(&page, "<i class=\"outage\"") > 9, "writes stop under faults");
    // What never struck is not passed over: its span is pale, its zero is red.
    assert_eq!(count(&page, " idle\""), 4);
    assert_eq!(count(&page, "class=\"n bad\">0<"), 2);
    assert!(!page.contains("class=\"evidence\""), "nothing is wrong");
}

#[test]
fn it_fetches_nothing() {
    for page in [html(&sample(10)), html(&violated(10)), html(&Report::default())] {
        assert!(page.contains("content=\"default-src 'none';"), "{page}");
        for door in ["http:", "https:", "//", "url(", "@import", "<link", "<img", " src="] {
            // Comments of the script begin with two slashes, and only they.
            let found =
                page.lines().find(|line| line.contains(door) && !line.trim().starts_with("//"));
            assert_eq!(found, None, "{door}");
        }
    }
}

#[test]
fn a_violation_is_shown_and_nothing_in_it_runs() {
    let page = html(&violated(30));
    assert_nested(&page);
    let text = words(&page);
    assert!(text.contains("A promise was broken"), "{text}");
    assert!(
        text.starts_with("2pc &lt;under&gt; &quot;quotes&quot; &amp; &#39;more&#39;"),
        "{text}"
    );
    assert!(text.contains("violated linearizable not linearizable: key k&lt;/pre&gt;&lt;script"));
    assert_eq!(count(&page, "<script"), 2, "the page's own, and its numbers");
    assert_eq!(count(&page, "alert(1)"), 1);
    assert!(!page.contains("<v>"), "the words of operations are escaped");
    let drawing = "<div class=\"evidence\"><p>client 1 | put k=v</p></div>";
    assert_eq!(count(&page, drawing), 1, "the checker's drawing is in the page");
}

#[test]
fn numbers_for_the_pointer_are_json_that_cannot_leave_its_place() {
    let mut report = sample(30);
    for fault in &mut report.faults {
        fault.name = "</script><b>\"\u{2028}".to_owned();
    }
    let page = html(&report);
    let (_, rest) = page.split_once("id=\"slices\">").unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    let slices: Vec<String> = serde_json::from_str(json).unwrap();
    assert_eq!(slices.len(), 150);
    assert!(slices[0].starts_with("0.000 s: "), "{}", slices[0]);
    assert!(slices.iter().any(|words| words.contains("</script><b>")), "faults are named");
    assert!(slices.iter().any(|words| words.contains("; p50 ")), "latencies are told");
}

#[test]
fn a_run_in_which_nothing_happened_has_a_page() {
    let page = html(&Report::default());
    assert_nested(&page);
    let text = words(&page);
    for expected in [
        "Nobody has judged this run",
        "Nothing: no judge was asked.",
        "Nothing happened.",
        "Nothing was broken in this run.",
        "No client asked for anything.",
        "None: every operation was done.",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn one_operation_makes_a_page() {
    let point = OperationPoint {
        start: 5_000_000,
        end: 7_000_000,
        kind: "put",
        writes: true,
        ending: PointEnding::Ok,
        words: None,
    };
    let report = Report {
        length: Duration::from_millis(10),
        operations: vec![point.clone()],
        ..Report::default()
    };
    let page = html(&report);
    assert_nested(&page);
    assert!(words(&page).contains("put 1 0 0 2.00 ms 2.00 ms 2.00 ms 2.00 ms"), "{page}");

    // An operation that never ended, and a clock that lied, are drawn somehow and break nothing.
    let odd = OperationPoint { start: u64::MAX, end: 0, ..point };
    let endless = OperationPoint { end: u64::MAX, ending: PointEnding::Unknown, ..odd.clone() };
    let report = Report { operations: vec![odd, endless], ..report };
    assert_nested(&html(&report));
}

#[test]
fn long_lists_are_cut_and_counted() {
    let refused = |index: u64| OperationPoint {
        start: index,
        end: index + 1,
        kind: "put",
        writes: true,
        ending: PointEnding::Refused,
        words: Some(format!("operation number {index};").into()),
    };
    let mut report = sample(10);
    report.operations = (0..1_500).map(refused).collect();
    let fault = report.faults[0].clone();
    report.faults = vec![fault; 450];
    let page = html(&report);
    assert_nested(&page);
    assert_eq!(count(&page, "operation number "), 200);
    assert!(page.contains("number 199;") && !page.contains("number 200;"));
    let text = words(&page);
    assert!(text.contains("1,500 operations refused: did not happen"), "{text}");
    assert!(text.contains("and 1,300 more"), "{text}");
    assert!(text.contains("All 450 faults") && text.contains("and 250 more"), "{text}");
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
}

#[test]
fn the_worst_verdict_is_the_verdict() {
    let judged = |findings: &[Finding]| {
        let verdict = |finding: &Finding| JudgeVerdict {
            judge: "j".to_owned(),
            finding: *finding,
            words: String::new(),
            timeline_html: None,
        };
        let verdicts = findings.iter().map(verdict).collect();
        Report { verdicts, ..Report::default() }.finding()
    };
    assert_eq!(judged(&[]), Finding::Undecided);
    assert_eq!(judged(&[Finding::Holds, Finding::Holds]), Finding::Holds);
    assert_eq!(judged(&[Finding::Holds, Finding::Undecided]), Finding::Undecided);
    assert_eq!(judged(&[Finding::Undecided, Finding::Violated, Finding::Holds]), Finding::Violated);
}
