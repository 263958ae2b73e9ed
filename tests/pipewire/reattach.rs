//! Bridges that are killed and started again under a guest, as a real sink hears it.

use std::sync::Arc;
use std::time::Duration;

use vsnd_bridge::sim::frontend::Kernel;
use vsnd_bridge::sim::signal::{Frame, PlayReport, TestSignal, compare};
use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::pipewire::private::SINK;
use vsnd_pw_module::{Direction, SoundServer};
use vsnd_tests::pipewire::{Endpoint, Sound};

use crate::guest::{Busy, Desk, PATIENCE, eventually, keeping_pace};
use crate::machine::{Machine, POLICY};
use crate::play::{assert_unnoticed, check_clean, open, write_all};

/// The private server's cycle: what a node that is killed may have taken and never given to the graph.
const CYCLE: u64 = 1_024;

fn bridges_server(desk: &Desk) -> Arc<dyn SoundServer> {
    Arc::new(PipeWireServer::start(|_| (), Some(desk.private.remote())).unwrap())
}

/// What the recorder heard, as frames of 16 bits.
fn frames(recording: &Sound) -> Vec<Frame> {
    let sample = |sample: f32| (sample * 32_768.0).round() as i16;
    recording.samples.chunks_exact(2).map(|frame| [sample(frame[0]), sample(frame[1])]).collect()
}

/// Everything but for `kills` gaps, in each of which the server lost a cycle at most: the guest's ring waits for the next bridge.
fn is_whole(report: &PlayReport, kills: u64) -> bool {
    report.corrupt == 0
        && (report.head_cut, report.tail_cut) == (0, 0)
        && report.gaps == kills
        && report.lost + report.repeated <= kills * CYCLE
}

#[test]
fn a_guest_is_heard_but_for_the_gap_when_its_bridge_is_killed_and_started_at_once() {
    const KILLS: u64 = 3;
    let signal = TestSignal::new(1).frames(4 * 48_000);
    let octets: Vec<u8> = signal.iter().flatten().flat_map(|sample| sample.to_le_bytes()).collect();
    keeping_pace(|| {
        let desk = Desk::new();
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
        let mut machine = Machine::start(bridges_server(&desk));
        let guest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&guest, Direction::Playback, 1_200, 24_000);
        std::thread::scope(|scope| {
            let player = scope.spawn(|| {
                write_all(&pcm, &octets);
                pcm.drain().unwrap();
            });
            for _ in 0..KILLS {
                std::thread::sleep(Duration::from_millis(700));
                machine.kill_bridge();
                machine.start_bridge(bridges_server(&desk), POLICY);
            }
            player.join().unwrap();
        });
        assert_unnoticed(&pcm);
        pcm.close();
        let is_silent = |sample: &f32| *sample == 0.0;
        let ended = |heard: &Sound| heard.samples.iter().rev().take(9_600).all(is_silent).then_some(());
        recorder.wait(PATIENCE, "the end of the sound", ended).unwrap();
        let recording = recorder.finish();
        if !recording.gaps.is_empty() {
            return Err(Busy(format!("the recorder missed {:?}", recording.gaps)));
        }
        let report = compare(&frames(&recording), std::slice::from_ref(&signal)).remove(0);
        assert!(is_whole(&report, KILLS), "{report}");
        check_clean(&guest, &machine);
        machine.end_bridge();
        eventually("no node and no client is left", || {
            let ours = |text: Option<&str>| text.is_some_and(|text| text.starts_with("vsnd."));
            let left = desk
                .graph()
                .iter()
                .any(|object| ours(object.get("node.name")) || ours(object.get("vsnd.id")));
            (!left).then_some(())
        });
        Ok(())
    });
}
