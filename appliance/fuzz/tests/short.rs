//! A short run of each target, with the same inputs each time, and the samples themselves.

use std::fs;

use xdnsd_fuzz::{Limit, TARGETS, Target, clean_up, run, samples};

/// Where everything or nothing is taken, only the first lines of a parser are tried.
fn tried(name: &str) {
    let target = Target::named(name).expect("a target");
    let report = run(target, 1, Limit::Rounds(target.rounds));
    let report = report.unwrap_or_else(|problem| panic!("{problem}"));
    let (least, refused) = (report.rounds / 50, report.rounds - report.taken);
    assert!(report.taken > least && refused > least, "{report}");
}

macro_rules! short_runs {
    ($($test:ident: $target:literal,)*) => {
        $(#[test]
        fn $test() {
            tried($target);
        })*

        #[test]
        fn each_target_has_a_run() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$($target),*]);
        }
    };
}

short_runs! {
    a_frame_is_refused_or_is_a_query_that_a_network_stack_sees_too: "frame",
    a_query_is_answered_in_its_own_words: "query",
    of_an_answer_only_what_is_well_formed_is_kept: "answer",
    whatever_happens_over_time_a_reply_is_its_querys_own: "engine",
    queries_in_a_stream_come_out_as_they_were_sent: "stream",
    answers_in_a_stream_are_those_of_their_questions: "answer-stream",
    of_a_snapshot_only_answers_of_ours_are_read: "snapshot",
    a_compiled_list_is_refused_or_gives_verdicts: "list",
    local_data_is_refused_or_gives_records_of_its_own: "local",
    a_list_is_refused_or_blocks_what_its_lines_name: "rules",
    a_hosts_file_gives_hosts_that_are_read_again_as_written: "hosts",
    leases_are_those_of_clients_that_can_have_a_name: "leases",
    a_config_is_taken_or_its_faults_have_a_place: "config",
    a_request_gets_lines_and_how_it_went: "control",
}

/// A format has changed, or a sample: `cargo run -p xdnsd-fuzz -- --write-samples`.
#[test]
fn samples_are_what_the_encoders_make() {
    for (target, file, bytes) in samples::all() {
        let folder = Target::named(target).expect("a target").folder();
        let kept = fs::read(folder.join(&file));
        assert_eq!(kept.ok(), Some(bytes), "{target}/{file}");
    }
    clean_up();
}
