//! Clusters of 75, 150 and 300 shards through everything but Redis and Kubernetes themselves: what grows, grows with the shards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method as Verb, Uri},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use super::*;
use crate::{
    domain::{
        capture::{Forms, MethodChoice},
        cluster,
        installation::{self, Installation, InstallationShard, PlainArchive},
        manifest::{Manifest, NodeRole},
        observation::{NodeObservation, Seen, SourceObservation},
        rdb::{BigKey, Private, ValueType},
        source::{NodeAddress, SourceAddress},
        topology::{self, Topology},
        worker::{StoreOutcome, StorePart},
        workload::{DataVolume, Wanted, Workload},
    },
    edge::{
        kubernetes::{Reach, Way},
        redis_node::{Access, Dial, Dialed, inspect::SourceAccess},
        spool,
    },
    flow::backup::{hosts::Hosts, lanes::Lanes, prepare},
    report::Progress,
    settings::Settings,
};

/// Replicas of each shard.
const REPLICAS: u32 = 2;
const MACHINES: u32 = 30;

/// What one backup cost.
#[derive(Debug, Default)]
struct Cost {
    calls: usize,
    orders: usize,
    reports: usize,
    manifest: usize,
    installation: usize,
}

#[tokio::test]
async fn what_a_backup_costs_grows_with_its_shards_and_no_faster() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut costs = Vec::new();
    for shards in [75, 150, 300] {
        costs.push(backup(shards).await);
    }
    let [small, middle, large] = costs.as_slice() else { panic!("three were asked for") };
    // A pod looked at, a Job made, a log read, a Job deleted.
    assert_eq!(middle.calls - small.calls, 75 * 4, "{costs:#?}");
    assert_eq!(large.calls - middle.calls, 150 * 4, "{costs:#?}");
    for of in [
        |cost: &Cost| cost.orders,
        |cost: &Cost| cost.reports,
        |cost: &Cost| cost.manifest,
        |cost: &Cost| cost.installation,
    ] {
        // Numbers and addresses get a digit longer.
        let (small, middle, large) = (of(small), of(middle), of(large));
        assert!(middle * 100 < small * 205, "{costs:#?}");
        assert!(large * 100 < middle * 205, "{costs:#?}");
    }
    assert!(large.orders < 300 * 2048 && large.reports < 300 * 8192, "{costs:#?}");
}

/// Plans a Cluster, has each shard captured by a worker that needs no time, and writes the documents.
async fn backup(shards: u32) -> Cost {
    let topology = topology(shards);
    let api = Api::begin().await;
    let bench = Bench::new();
    let task = bench.task();
    let found = found(&topology, &api, &bench).await;
    let context = context();
    let choice = (MethodChoice::Auto, Forms::RDB);
    let chosen = prepare::choose_forms(&task.source, choice.0, choice.1, (&found, &topology));
    let plan = Box::pin(chosen).await.unwrap().plan;
    assert_eq!(plan.shards.len(), shards as usize);

    let backup: BackupId = "20261120T020000Z-daily-k3x9q2".parse().unwrap();
    let Some(pods) = &found.pods else { panic!("it is made of pods") };
    let run = run(&pods.cluster, &backup);
    let jobs = Jobs::open(pods.reach.client(), "backup-0", run).await.unwrap();
    let workers = Workers::new(jobs, 8);
    let lanes = Lanes::open(&task, &backup, &context).await.unwrap();
    let (spool, hosts) = (bench.spool(), Hosts::new(1));
    let job = Job {
        task: &task,
        backup: &backup,
        lanes: &lanes,
        found: &found,
        access: &found.access,
        spool: &spool,
        context: &context,
        halt: watch::Sender::new(false),
        hosts: &hosts,
        workers: Some(&workers),
        overdue: None,
    };
    let attempts = plan.shards.iter().map(|shard| {
        let (candidate, job) = (&shard.candidates[0], &job);
        assert_eq!(candidate.method, Some(Method::Bgsave), "{}", candidate.reason);
        assert_eq!(candidate.role, NodeRole::Replica);
        Box::pin(workers.capture(job, shard, candidate))
    });
    let captured: Vec<_> = stream::iter(attempts).buffered(workers.at_once()).collect().await;
    let captured: Vec<ShardCapture> = captured.into_iter().map(Result::unwrap).collect();

    let mut cost = api.cost.lock().unwrap();
    let mut manifest = fixture();
    manifest.shards = captured.iter().map(|shard| shard.manifest.clone()).collect();
    manifest.check().unwrap();
    cost.manifest = manifest.encode().unwrap().len();
    let parts: Vec<InstallationShard> =
        captured.into_iter().map(|shard| shard.installation).collect();
    let installation = Installation {
        version: installation::VERSION,
        backup: &backup,
        source: &task.source.name,
        topology: &topology,
        shards: &parts,
    };
    cost.installation = serde_json::to_vec(&installation).unwrap().len();
    std::mem::take(&mut *cost)
}

fn fixture() -> Manifest {
    let text = fs::read_to_string("tests/fixtures/manifest-v1.json").unwrap();
    let mut manifest = Manifest::decode(text.as_bytes()).unwrap();
    for shard in &mut manifest.shards {
        shard.aof = None;
        shard.archives.truncate(1);
    }
    manifest
}

/// Number 0 of a shard is its primary.
fn host(shard: u32, number: u32) -> String {
    format!("10.{}.{}.{}", 244 + number, shard / 200, shard % 200 + 1)
}

fn address(shard: u32, number: u32) -> NodeAddress {
    NodeAddress::new(host(shard, number), 6379)
}

fn members(shards: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..shards).flat_map(|shard| (0..=REPLICAS).map(move |number| (shard, number)))
}

/// What the nodes of such a Cluster answer, as it is kept of a look.
fn topology(shards: u32) -> Topology {
    let id = |shard: u32, number: u32| format!("{:040x}", shard * 10 + number);
    let line = |(shard, number): (u32, u32)| {
        let (first, last) = (shard * 16384 / shards, (shard + 1) * 16384 / shards - 1);
        let rest = match number {
            0 => format!("master - 0 1426238317239 {shard} connected {first}-{last}"),
            _ => format!("slave {} 0 1426238317239 {shard} connected", id(shard, 0)),
        };
        format!("{} {}@16379 {rest}\n", id(shard, number), address(shard, number))
    };
    let text: String = members(shards).map(line).collect();
    let told = cluster::parse_nodes(&text).unwrap();
    let seen = |(shard, number): (u32, u32)| {
        let role = match number {
            0 => "role:master\r\n".to_owned(),
            _ => format!(
                "role:slave\r\nmaster_host:{}\r\nmaster_port:6379\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:1\r\n",
                host(shard, 0)
            ),
        };
        let info = format!(
            "redis_version:8.0.2\r\nrun_id:{}\r\nserver_time_usec:1763604000000000\r\ncluster_enabled:1\r\nused_memory:90000000\r\n\
             master_replid:{:040}\r\nmaster_repl_offset:100\r\nslave_repl_offset:100\r\ndb0:keys=812345,expires=4711,avg_ttl=0\r\n{role}",
            id(shard, number),
            shard,
        );
        let address = address(shard, number);
        let mut node = NodeObservation::of_info(&address, &info).unwrap();
        let mut view = told.clone();
        for it in &mut view {
            it.myself = it.id == id(shard, number);
        }
        node.cluster = Some(cluster::own_shard(view));
        Seen { address, outcome: Ok(node) }
    };
    let observation = SourceObservation {
        source: SourceAddress::Nodes(vec![address(0, 0)]),
        sentinel: None,
        nodes: members(shards).map(seen).collect(),
    };
    topology::resolve(&observation).unwrap()
}

fn workload(topology: &Topology) -> Workload {
    let count = u32::try_from(topology.shards.len()).unwrap();
    let member = |(index, (shard, number)): (u32, (u32, u32))| {
        let pod = format!("redis-{index}");
        Member {
            container: "redis".to_owned(),
            address: address(shard, number),
            names: BTreeSet::from([pod.clone()]),
            server_names: vec![format!("{pod}.redis.shop.svc")],
            machine: Some(format!("machine-{}", index % MACHINES)),
            data: Some(DataVolume {
                volume: "data".to_owned(),
                path: "/data".to_owned(),
                sub_path: None,
                claim: Some(format!("data-{pod}")),
                template: Some("data".to_owned()),
            }),
            pod,
        }
    };
    Workload {
        namespace: "shop".to_owned(),
        wanted: Wanted::StatefulSet("redis".to_owned()),
        members: (0..).zip(members(count)).map(member).collect(),
        sentinels: Vec::new(),
        auth: None,
        speaks_tls: false,
        operator: None,
        applied_by: None,
        autoscaler: None,
        unsure: Vec::new(),
    }
}

/// Nobody answers: no child of a save is waited for.
#[derive(Debug)]
struct Nobody(Reach);

#[async_trait]
impl Dial for Nobody {
    async fn dial(&self, _: &NodeAddress) -> std::io::Result<Dialed> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    fn machine(&self, address: &NodeAddress) -> Option<String> {
        self.0.machine(address)
    }
}

async fn found(topology: &Topology, api: &Api, bench: &Bench) -> Found {
    let kubeconfig = bench.folder.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("http://{}", api.address)}}],
        "users": [{"name": "it", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    fs::write(&kubeconfig, text.to_string()).unwrap();
    let path = kubeconfig.display().to_string();
    let environment = |name: &str| (name == "KUBECONFIG").then(|| path.clone());
    let client = Client::new(None, &environment).await.unwrap();
    let reach = Reach::new(client, Way::Direct, workload(topology));
    let dial: Arc<dyn Dial> = Arc::new(Nobody(reach.clone()));
    let nodes = Access { dial: Some(dial), ..Access::default() };
    let source = bench.task().source;
    let Location::Kubernetes(cluster) = source.location else { panic!("it is made of pods") };
    Found {
        name: source.name,
        address: SourceAddress::Nodes(vec![address(0, 0)]),
        access: SourceAccess { nodes: nodes.clone(), sentinels: nodes },
        pods: Some(Pods {
            reach,
            cluster,
            identity: String::new(),
            password_entry: None,
            notes: Vec::new(),
        }),
    }
}

struct Bench {
    folder: TempDir,
    settings: Settings,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("store")).unwrap();
        let text = format!(
            "sources: {{analytics: {{kubernetes: {{namespace: shop, statefulSet: redis, workers: jobs}}}}}}\n\
             stores: {{disk: {{directory: {{path: {}}}}}}}\n",
            folder.path().join("store").display(),
        );
        let settings = Settings::parse(Path::new("test.yaml"), &text).unwrap();
        Self { folder, settings }
    }

    fn task(&self) -> Task {
        Task {
            source: self.settings.source(&"analytics".parse().unwrap(), &|_| None).unwrap(),
            stores: self.settings.stores_to_write(&[]).unwrap(),
            forms: Forms::RDB,
            method: MethodChoice::Auto,
            schedule: None,
            scheduled_for: None,
            window: None,
            adopt: false,
            config: self.settings.path().map(Path::to_owned),
            policies: BTreeMap::new(),
        }
    }

    fn spool(&self) -> spool::Limits {
        spool::Limits { folder: self.folder.path().to_owned(), bytes_max: 1 << 20 }
    }
}

fn context() -> Context {
    Context {
        clock: Arc::new(|| "2026-11-20T02:00:00Z".parse().unwrap()),
        chance: Arc::new(|| 7),
        environment: Arc::new(|_| None),
        signal: watch::channel(None).1,
        progress: Progress::quiet(),
        over_store: Arc::new(|store| store),
        identities: Identities::default(),
    }
}

/// An API server of whose Jobs each ends well at once.
struct Api {
    address: SocketAddr,
    cost: Arc<Mutex<Cost>>,
}

#[derive(Clone)]
struct Shared {
    cost: Arc<Mutex<Cost>>,
    /// What a worker says, by its pod.
    logs: Arc<Mutex<BTreeMap<String, String>>>,
    events: mpsc::UnboundedSender<Value>,
    /// Until somebody watches.
    watched: Arc<Mutex<Option<mpsc::UnboundedReceiver<Value>>>>,
}

impl Api {
    async fn begin() -> Self {
        let (events, watched) = mpsc::unbounded_channel();
        let cost = Arc::<Mutex<Cost>>::default();
        let watched = Arc::new(Mutex::new(Some(watched)));
        let shared = Shared { cost: Arc::clone(&cost), logs: Arc::default(), events, watched };
        let router = Router::new().fallback(answer).with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, cost }
    }
}

async fn answer(State(shared): State<Shared>, verb: Verb, uri: Uri, body: Bytes) -> Response {
    shared.cost.lock().unwrap().calls += 1;
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let name = path.rsplit('/').next().unwrap_or_default();
    if query.contains("watch=true") {
        let watched = shared.watched.lock().unwrap().take().unwrap();
        let events = stream::unfold(watched, |mut watched| async {
            let event = watched.recv().await?;
            Some((Ok::<_, std::io::Error>(format!("{event}\n")), watched))
        });
        return Body::from_stream(events).into_response();
    }
    if let Some(pod) = path.strip_suffix("/log") {
        let pod = pod.rsplit('/').next().unwrap_or_default();
        return shared.logs.lock().unwrap().remove(pod).unwrap().into_response();
    }
    let answer = match (verb, name) {
        (Verb::GET, "pods" | "jobs") => json!({"metadata": {"resourceVersion": "1"}, "items": []}),
        (Verb::GET, pod) => {
            let container = json!({"name": "redis-backup", "image": "redis-backup:0.1.0"});
            let metadata =
                json!({"name": pod, "namespace": "shop", "uid": pod, "resourceVersion": "1"});
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
        }
        (Verb::POST, _) => shared.run(&serde_json::from_slice(&body).unwrap()),
        _ => json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}}),
    };
    answer.to_string().into_response()
}

impl Shared {
    fn run(&self, job: &Value) -> Value {
        let variables = &job["spec"]["template"]["spec"]["containers"][0]["env"];
        let is_order = |it: &&Value| it["name"] == ORDER_VARIABLE;
        let order = variables.as_array().unwrap().iter().find(is_order).unwrap();
        let text = order["value"].as_str().unwrap();
        let order: Order = serde_json::from_str(text).unwrap();
        let report = Report::Captured(Box::new(part(&order)));
        let log = report.seal(&order.recipients().unwrap()).unwrap();
        let mut cost = self.cost.lock().unwrap();
        cost.orders += text.len();
        cost.reports += log.len();
        let name = job["metadata"]["name"].as_str().unwrap();
        self.logs.lock().unwrap().insert(name.to_owned(), log);
        let state = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let labels = json!({"batch.kubernetes.io/job-name": name});
        let status = json!({
            "phase": "Succeeded",
            "containerStatuses": [{"name": "redis-backup", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}],
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "status": status,
            "metadata": {"name": name, "labels": labels, "resourceVersion": "2"},
        });
        self.events.send(json!({"type": "MODIFIED", "object": pod})).unwrap();
        job.clone()
    }
}

/// As much as a shard has to tell: the twenty biggest keys have long names.
fn part(order: &Order) -> Part {
    let mut manifest = fixture().shards.remove(0);
    (manifest.shard, manifest.slots) = (order.shard, order.slots.clone());
    for archive in &mut manifest.archives {
        for object in &mut archive.objects {
            let text = object.key.to_string();
            object.key =
                text.replace("shard-0000", &format!("shard-{:04}", order.shard)).parse().unwrap();
        }
    }
    let key = |number: u64| BigKey {
        database: 0,
        key: format!("customer:{number:020}:sessions:{:020}", order.shard),
        value_type: ValueType::Hash,
        bytes: 1_000_000 - number,
    };
    let aux = [("redis-ver", "8.0.2"), ("ctime", "1763604001"), ("repl-offset", "184467")];
    let aux = aux.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let private = Private { aux: aux.into(), biggest_keys: (0..20).map(key).collect() };
    let plain = PlainArchive {
        name: "dump.rdb".to_owned(),
        bytes: 90_194_313_216,
        sha256: manifest.archives[0].objects[0].sha256,
    };
    let installation =
        InstallationShard { shard: order.shard, archives: vec![plain], rdb: private };
    let capture = ShardCapture {
        manifest,
        installation,
        plain_bytes: 90_194_313_216,
        server: order.candidate.server.clone(),
        began: "2026-11-20T02:00:00Z".parse().unwrap(),
    };
    let stored = |store: &String| StorePart {
        store: store.clone(),
        outcome: StoreOutcome::Stored(BTreeMap::new()),
    };
    Part { capture, stores: order.stores.iter().map(stored).collect() }
}
