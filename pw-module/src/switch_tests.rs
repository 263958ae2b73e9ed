use super::*;
use crate::{
    Client, Direction, Frames, NodeEvent, NodeState, Pages, Role, SampleFormat, ServerInfo, StreamFormat,
    UserVolume, VolumeEvent,
};

type Tell = Box<dyn Fn(ServerEvent) + Send>;

/// What a server of the test has, and what it was asked for.
#[derive(Default)]
struct Fake {
    /// What its nodes were told, by their number.
    nodes: BTreeMap<usize, Vec<&'static str>>,
    opened: usize,
    sought: Option<bool>,
    tell: Option<Tell>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Fake>>);

impl Server {
    /// Added to `switch`.
    fn on(switch: &Switch) -> Self {
        let server = Self::default();
        let started = server.clone();
        let start = |tell| {
            lock(&started.0).tell = Some(tell);
            Ok::<_, ()>(started)
        };
        switch.add(start).unwrap();
        server
    }

    fn tell(&self, event: ServerEvent) {
        // Its thread holds no lock that the switch's calls need.
        let tell = lock(&self.0).tell.take().unwrap();
        tell(event);
        lock(&self.0).tell = Some(tell);
    }

    fn connect(&self, name: &str, is_stand_in: bool) {
        let info = ServerInfo { name: name.to_owned(), version: "1".to_owned(), is_stand_in };
        self.tell(ServerEvent::Connected(info));
    }

    fn plays_to(&self, sinks: &[&str]) {
        let sinks = sinks.iter().map(|&sink| sink.to_owned()).collect();
        self.tell(ServerEvent::Targets(Targets { sinks, ..Targets::default() }));
    }

    fn lose(&self) {
        self.tell(ServerEvent::Lost("killed".to_owned()));
    }

    fn nodes(&self) -> Vec<Vec<&'static str>> {
        lock(&self.0).nodes.values().cloned().collect()
    }

    fn sought(&self) -> Option<bool> {
        lock(&self.0).sought
    }
}

impl SoundServer for Server {
    fn open(&self, spec: NodeSpec, _: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        let mut fake = lock(&self.0);
        fake.opened += 1;
        let number = fake.opened;
        fake.nodes.insert(number, spec.target.iter().map(|_| "target").collect());
        Some(Box::new(FakeNode { server: self.clone(), number }))
    }

    fn carries(&self, format: SampleFormat) -> bool {
        format == SampleFormat::S16Le
    }

    fn bounds(&self) -> Bounds {
        Bounds::NONE
    }

    fn seek(&self, wanted: bool) {
        lock(&self.0).sought = Some(wanted);
    }
}

struct FakeNode {
    server: Server,
    number: usize,
}

impl FakeNode {
    fn note(&self, what: &'static str) {
        lock(&self.server.0).nodes.entry(self.number).or_default().push(what);
    }
}

impl Node for FakeNode {
    fn start(&self) {
        self.note("start");
    }

    fn stop(&self) {
        self.note("stop");
    }

    fn set_target(&self, target: Option<String>) {
        self.note(if target.is_some() { "target" } else { "anywhere" });
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        lock(&self.server.0).nodes.remove(&self.number);
    }
}

/// A switch over two servers, and what it told.
struct Bench {
    switch: Switch,
    first: Server,
    second: Server,
    told: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Self {
        let told = Arc::<Mutex<Vec<String>>>::default();
        let telling = Arc::clone(&told);
        let switch = Switch::new(move |event| {
            lock(&telling).push(match event {
                ServerEvent::Targets(targets) => format!("sinks: {:?}", targets.sinks),
                ServerEvent::Connected(info) => format!("connected to {}", info.name),
                ServerEvent::Lost(_) => "lost".to_owned(),
                ServerEvent::Node(event) => event.node,
                ServerEvent::Volume(event) => format!("volume of {}", event.node),
            });
        });
        let (first, second) = (Server::on(&switch), Server::on(&switch));
        Self { switch, first, second, told }
    }

    fn open(&self) -> Box<dyn Node> {
        let format = StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap();
        let pages = Pages::anonymous(4096).unwrap();
        let ring = Arc::new(PcmRing::new(Direction::Playback, format, Frames(1024), pages));
        let text = String::new;
        let spec = NodeSpec {
            client: Client { name: text(), id: text(), domid: 7 },
            name: text(),
            description: text(),
            media_name: text(),
            restore_key: text(),
            role: Role::Stream,
            format,
            direction: Direction::Playback,
            period: Frames(480),
            target: None,
        };
        self.switch.open(spec, ring).unwrap()
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.told))
    }
}

const NO_NODES: [Vec<&str>; 0] = [];

#[test]
fn nodes_follow_to_the_server_that_is_there() {
    let bench = Bench::new();
    let (playing, resting) = (bench.open(), bench.open());
    playing.start();
    resting.start();
    resting.stop();
    bench.second.connect("second", false);
    assert_eq!(bench.first.nodes(), NO_NODES);
    assert_eq!(bench.second.nodes(), [vec!["start"], vec![]], "as their handles want them");
    bench.first.connect("first", false);
    assert_eq!(bench.first.nodes(), [vec!["start"], vec![]]);
    assert_eq!(bench.second.nodes(), NO_NODES);
    drop(playing);
    resting.start();
    assert_eq!(bench.first.nodes(), [vec!["start"]]);
    assert_eq!(bench.told(), ["connected to second", "connected to first"]);
}

#[test]
fn a_node_is_routed_on_its_next_server_as_it_was_last() {
    let bench = Bench::new();
    let (routed, freed, plain) = (bench.open(), bench.open(), bench.open());
    routed.set_target(Some("sink".to_owned()));
    routed.start();
    freed.set_target(Some("sink".to_owned()));
    freed.set_target(None);
    bench.second.connect("second", false);
    assert_eq!(bench.second.nodes(), [vec!["target", "start"], vec!["anywhere"], vec![]]);
    plain.set_target(Some("sink".to_owned()));
    assert_eq!(bench.second.nodes(), [vec!["target", "start"], vec!["anywhere"], vec!["target"]]);
}

#[test]
fn what_nodes_tell_is_told_while_their_server_is_away() {
    let bench = Bench::new();
    bench.first.connect("first", false);
    bench.first.lose();
    bench.told();
    let (node, client) = ("node".to_owned(), String::new());
    let volume = UserVolume { channels: vec![1.0], muted: false };
    let moved = ServerEvent::Volume(VolumeEvent { node: node.clone(), client: client.clone(), volume });
    let state = NodeState::Connecting;
    bench.first.tell(ServerEvent::Node(NodeEvent { node, client, state }));
    bench.first.tell(moved.clone());
    assert_eq!(bench.told(), ["node", "volume of node"]);
    bench.second.tell(moved);
    assert_eq!(bench.told(), [""; 0], "it has no nodes");
}

#[test]
fn nodes_stay_with_a_server_that_restarts() {
    let bench = Bench::new();
    bench.first.connect("first", false);
    let _node = bench.open();
    bench.first.lose();
    bench.first.connect("first", false);
    assert_eq!(lock(&bench.first.0).opened, 1, "it keeps them itself");
    assert_eq!(bench.told(), ["connected to first", "lost", "connected to first"]);
}

#[test]
fn what_another_server_does_is_nobodys_business() {
    let bench = Bench::new();
    bench.first.connect("first", false);
    bench.told();
    bench.second.connect("second", false);
    bench.second.lose();
    let event = NodeEvent { node: "node".to_owned(), client: String::new(), state: NodeState::Connecting };
    bench.second.tell(ServerEvent::Node(event.clone()));
    assert_eq!(bench.told(), [""; 0]);
    bench.first.tell(ServerEvent::Node(event));
    assert_eq!(bench.told(), ["node"]);
}

#[test]
fn a_server_is_looked_for_while_none_before_it_plays() {
    let bench = Bench::new();
    assert_eq!(bench.second.sought(), None, "from the beginning");
    bench.first.plays_to(&["sink"]);
    bench.first.connect("first", false);
    assert_eq!(bench.second.sought(), Some(false));
    bench.first.plays_to(&[]);
    assert_eq!(bench.second.sought(), Some(true));
    bench.first.plays_to(&["sink"]);
    bench.first.lose();
    assert_eq!((bench.first.sought(), bench.second.sought()), (None, Some(true)));
}

#[test]
fn a_server_without_a_sink_has_the_nodes_only_if_no_other_plays() {
    let bench = Bench::new();
    let _node = bench.open();
    bench.first.plays_to(&[]);
    bench.first.connect("first", false);
    bench.second.connect("second", false);
    assert_eq!((bench.first.nodes().len(), bench.second.nodes().len()), (0, 1));
    bench.first.plays_to(&["sink"]);
    assert_eq!((bench.first.nodes().len(), bench.second.nodes().len()), (1, 0));
    bench.second.lose();
    bench.first.plays_to(&[]);
    assert_eq!(bench.first.nodes().len(), 1);
    assert_eq!(
        bench.told(),
        [
            "sinks: {}",
            "connected to first",
            "connected to second",
            "sinks: {\"sink\"}",
            "connected to first",
            "sinks: {}"
        ]
    );
}

#[test]
fn what_there_is_to_play_on_is_told_of_the_server_that_has_the_nodes() {
    let bench = Bench::new();
    bench.second.plays_to(&["usb"]);
    bench.second.connect("second", false);
    bench.second.plays_to(&["hdmi", "usb"]);
    let second = ["sinks: {\"usb\"}", "connected to second", "sinks: {\"hdmi\", \"usb\"}"];
    assert_eq!(bench.told(), second);
    bench.first.plays_to(&["sink"]);
    assert_eq!(bench.told(), [""; 0], "it hasn't answered yet");
    bench.first.connect("first", false);
    bench.second.plays_to(&["usb"]);
    assert_eq!(bench.told(), ["sinks: {\"sink\"}", "connected to first"]);
    bench.first.lose();
    assert_eq!(bench.told(), ["lost", "sinks: {\"usb\"}", "connected to second"]);
}

#[test]
fn a_stand_in_counts_only_where_nothing_comes_before_it() {
    let bench = Bench::new();
    let _node = bench.open();
    bench.second.connect("second", true);
    assert_eq!((bench.first.nodes().len(), bench.second.nodes().len()), (1, 0));
    bench.first.connect("first", true);
    assert_eq!(bench.told(), ["connected to first"]);
}

#[test]
fn a_handle_that_outlives_the_switch_does_nothing() {
    let Bench { switch, first, .. } = Bench::new();
    let bench = Bench { switch, first, ..Bench::new() };
    let node = bench.open();
    let first = bench.first.clone();
    drop(bench);
    node.start();
    assert_eq!(first.nodes(), NO_NODES);
}
