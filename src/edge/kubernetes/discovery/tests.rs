//! What is found in namespaces as real users write them, from their YAML to the decision.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, PodStatus, Service, Volume},
};
use kube::api::DynamicObject;
use serde::Deserialize as _;

use super::words;
use crate::domain::{
    source::NodeAddress,
    workload::{
        Choice, Error, Wanted, Workload,
        facts::{Facts, Labels, Owner, SecretKey},
        inventory, resolve,
    },
};

const SHOP: &str = "
kind: Service
metadata: {name: redis}
spec: {clusterIP: None, selector: {app: redis}}
---
kind: StatefulSet
metadata: {name: redis, annotations: {argocd.argoproj.io/tracking-id: shop}}
spec:
  serviceName: redis
  replicas: 3
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec:
      containers:
        - name: redis
          image: localhost/redis:7.0
          command: [sh, /config/start.sh]
          ports: [{name: redis, containerPort: 6379}]
          volumeMounts:
            - {name: config, mountPath: /config}
            - {name: data, mountPath: /data}
      volumes: [{name: config, configMap: {name: redis}}]
  volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]
---
kind: StatefulSet
metadata: {name: redis-sentinel}
spec:
  serviceName: redis-sentinel-headless
  replicas: 3
  selector: {matchLabels: {app: redis-sentinel}}
  template:
    metadata: {labels: {app: redis-sentinel}}
    spec:
      containers:
        - name: sentinel
          image: localhost/redis:7.0
          command: [sh, /config/start.sh]
          ports: [{name: sentinel, containerPort: 26379}]
";

const GATEWAY: &str = "
kind: StatefulSet
metadata: {name: redis-gateway}
spec:
  serviceName: redis-gateway
  replicas: 2
  selector: {matchLabels: {app: gateway}}
  template:
    metadata: {labels: {app: gateway}}
    spec:
      containers:
        - {name: sentinel, image: redis, command: [redis-sentinel, /state/sentinel.conf], ports: [{containerPort: 26379}]}
        - {name: redis, image: redis, args: [--port, '6380', --dir, /var/lib/redis], ports: [{containerPort: 6380}]
          , volumeMounts: [{name: state, mountPath: /data}, {name: rdb, mountPath: /var/lib, subPath: redis}]}
        - {name: metrics, image: 'quay.io/oliver006/redis_exporter:v1', ports: [{containerPort: 9121}]}
  volumeClaimTemplates: [{metadata: {name: state}, spec: {}}, {metadata: {name: rdb}, spec: {}}]
";

/// A container with these lines, in one pod.
fn alone(container: &str, volumes: &str) -> String {
    format!(
        "
kind: StatefulSet
metadata: {{name: cache}}
spec:
  serviceName: cache
  replicas: 1
  selector: {{matchLabels: {{app: cache}}}}
  template:
    metadata: {{labels: {{app: cache}}}}
    spec:
      volumes: [{volumes}]
      containers: [{{name: cache, image: redis, ports: [{{containerPort: 6379}}], {container}}}]
"
    )
}

/// What a cluster would make of it: pods of the sets, each with an IP.
fn facts(yaml: &str) -> Facts {
    let mut facts = Facts { namespace: "shop".to_owned(), ..Facts::default() };
    for text in yaml.split("\n---\n") {
        let document: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        match document["kind"].as_str().unwrap() {
            "Service" => {
                let service = Service::deserialize(document).unwrap();
                facts.services.extend(words::service(&service));
            }
            "StatefulSet" => {
                let set = StatefulSet::deserialize(document).unwrap();
                facts.stateful_sets.extend(words::stateful_set(&set));
                for number in 0..set.spec.as_ref().unwrap().replicas.unwrap() {
                    let address = facts.pods.len() + 1;
                    let pod = pod_of(&set, number, &format!("10.244.0.{address}"));
                    facts.pods.extend(words::pod(&pod));
                }
            }
            kind => {
                let object = DynamicObject::deserialize(document.clone()).unwrap();
                facts.resources.extend(words::resource(kind, &object));
            }
        }
    }
    facts
}

/// As the controller of a `StatefulSet` makes them.
fn pod_of(set: &StatefulSet, number: i32, ip: &str) -> Pod {
    let spec = set.spec.clone().unwrap();
    let name = format!("{}-{number}", set.metadata.name.clone().unwrap());
    let mut pod_spec = spec.template.spec.unwrap();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name;
    pod_spec.node_name = Some(format!("machine-{}", number % 2));
    let claims = spec.volume_claim_templates.into_iter().flatten().map(|claim| {
        let template = claim.metadata.name.unwrap();
        let claim = format!("{template}-{name}");
        let source = serde_json::json!({"claimName": claim});
        let source = serde_json::from_value(source).unwrap();
        Volume { name: template, persistent_volume_claim: Some(source), ..Volume::default() }
    });
    pod_spec.volumes.get_or_insert_default().extend(claims);
    let mut metadata = spec.template.metadata.unwrap();
    metadata.name = Some(name);
    let owner = serde_json::json!([{
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.metadata.name, "uid": "1",
        "controller": true,
    }]);
    metadata.owner_references = serde_json::from_value(owner).unwrap();
    let status = PodStatus {
        phase: Some("Running".to_owned()),
        pod_ip: Some(ip.to_owned()),
        ..PodStatus::default()
    };
    Pod { metadata, spec: Some(pod_spec), status: Some(status) }
}

fn found(yaml: &str, name: &str) -> Workload {
    let wanted = Wanted::StatefulSet(name.to_owned());
    resolve(&facts(yaml), &wanted, &Choice::default()).unwrap()
}

fn auth(container: &str, volumes: &str) -> (Option<(String, String)>, Vec<String>) {
    let Workload { auth, unsure, .. } = found(&alone(container, volumes), "cache");
    (auth.map(|SecretKey { secret, key }| (secret, key)), unsure)
}

fn of(secret: &str, key: &str) -> (String, String) {
    (secret.to_owned(), key.to_owned())
}

#[test]
fn a_stateful_set_is_its_pods_with_their_names_and_volumes() {
    let shop = found(SHOP, "redis");
    let pods: Vec<_> = shop.members.iter().map(|member| member.pod.as_str()).collect();
    assert_eq!(pods, ["redis-0", "redis-1", "redis-2"]);
    let second = &shop.members[1];
    assert_eq!(second.address, NodeAddress::new("10.244.0.2", 6379));
    assert_eq!(second.machine.as_deref(), Some("machine-1"));
    assert_eq!(
        second.server_names,
        [
            "redis-1.redis.shop.svc.cluster.local",
            "redis-1.redis.shop.svc",
            "redis-1.redis.shop",
            "redis-1.redis",
            "redis.shop.svc.cluster.local",
            "redis.shop.svc",
            "redis.shop",
            "redis",
        ],
    );
    let data = second.data.as_ref().unwrap();
    assert_eq!(data.claim.as_deref(), Some("data-redis-1"));
    assert_eq!((data.template.as_deref(), data.path.as_str()), (Some("data"), "/data"));
    assert_eq!(shop.applied_by, Some("Argo CD"));
    assert_eq!((shop.auth, shop.unsure), (None, Vec::new()));
}

#[test]
fn a_pod_is_known_by_every_name_that_redis_may_tell() {
    let shop = found(SHOP, "redis");
    for host in ["10.244.0.2", "redis-1.redis", "redis-1.redis.shop.svc.cluster.local", "redis-1"] {
        let member = shop.member_at(&NodeAddress::new(host, 6379)).unwrap();
        assert_eq!(member.pod, "redis-1", "{host}");
    }
    let sentinel = NodeAddress::new("redis-sentinel-0.redis-sentinel-headless.shop.svc", 26379);
    assert_eq!(shop.at(&sentinel).unwrap().container, "sentinel");
    assert!(shop.member_at(&sentinel).is_none());
    assert!(shop.at(&NodeAddress::new("10.244.0.9", 6379)).is_none());
}

#[test]
fn sentinels_are_no_members_and_all_of_the_namespace_are_asked() {
    let shop = found(SHOP, "redis");
    let sentinels: Vec<_> = shop.sentinels.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(sentinels, ["10.244.0.4:26379", "10.244.0.5:26379", "10.244.0.6:26379"]);
    let names: Vec<_> = inventory(&facts(SHOP)).into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["shop-redis"]);
}

#[test]
fn of_several_containers_the_server_is_found_with_its_own_port_and_folder() {
    let gateway = found(GATEWAY, "redis-gateway");
    let first = &gateway.members[0];
    assert_eq!((first.container.as_str(), first.address.port()), ("redis", 6380));
    let data = first.data.as_ref().unwrap();
    assert_eq!(data.claim.as_deref(), Some("rdb-redis-gateway-0"));
    assert_eq!(data.sub_path.as_deref(), Some("redis"));
    assert_eq!(gateway.sentinels.len(), 2);
    assert_eq!(gateway.sentinels[0].container, "sentinel");
}

#[test]
fn the_password_is_found_where_the_server_itself_has_it_from() {
    let variable =
        |name| format!("env: [{{name: {name}, valueFrom: {{secretKeyRef: {{name: s, key: k}}}}}}]");
    let file = "{name: v, secret: {secretName: s}}";
    let renamed = "{name: v, secret: {secretName: s, items: [{key: k, path: word}]}}";
    for (container, volumes, expected) in [
        (format!("args: ['--requirepass', '$(PW)'], {}", variable("PW")), "", Some(of("s", "k"))),
        (
            format!("command: [sh, -c, 'redis-server --requirepass \"$PW\"'], {}", variable("PW")),
            "",
            Some(of("s", "k")),
        ),
        (variable("REDIS_PASSWORD"), "", Some(of("s", "k"))),
        (variable("REDISCLI_AUTH"), "", Some(of("s", "k"))),
        (variable("OTHER"), "", None),
        (
            "env: [{name: REDIS_PASSWORD_FILE, value: /s/word}], volumeMounts: [{name: v, mountPath: /s/}]"
                .to_owned(),
            renamed,
            Some(of("s", "k")),
        ),
        (
            "args: [sh, -c, 'redis-server --requirepass \"$(cat /s/word)\"'], volumeMounts: [{name: v, mountPath: /s}]"
                .to_owned(),
            file,
            Some(of("s", "word")),
        ),
    ] {
        assert_eq!(auth(&container, volumes), (expected, Vec::new()), "{container}");
    }
}

#[test]
fn a_password_that_stands_in_the_pod_is_told_and_not_kept() {
    let container = "env: [{name: REDIS_PASSWORD, value: hunter2}]";
    let (key, unsure) = auth(container, "");
    assert_eq!(key, None);
    assert!(unsure[0].contains("stands in the pod itself: name it by `auth`"), "{unsure:?}");
    assert!(!format!("{:?}", facts(&alone(container, "")).pods).contains("hunter2"));
    let (_, unsure) = auth("args: [redis-server, --requirepass, x]", "");
    assert!(unsure[0].contains("from where was not found"), "{unsure:?}");
}

#[test]
fn an_operated_installation_is_found_by_its_resource_and_has_its_auth() {
    let resource = "
kind: RedisFailover
metadata: {name: sessions}
spec: {auth: {secretPath: redis-auth}}";
    let mut facts = facts(&format!("{SHOP}\n---{resource}"));
    let operator = Owner::new("RedisFailover", "sessions");
    facts.stateful_sets[0].owner = Some(operator.clone());
    let wanted = Wanted::RedisFailover("sessions".to_owned());
    let workload = resolve(&facts, &wanted, &Choice::default()).unwrap();
    assert_eq!(workload.operator, Some(operator));
    let auth = workload.auth.unwrap();
    assert_eq!((auth.secret.as_str(), auth.key.as_str()), ("redis-auth", "password"));
    let found: Vec<_> = inventory(&facts).into_iter().map(|it| it.workload.wanted).collect();
    assert_eq!(found, [wanted]);
}

#[test]
fn the_one_container_that_an_operator_makes_is_the_server_whatever_its_image_is_called() {
    let set =
        alone("", "").replace("image: redis, ports: [{containerPort: 6379}]", "image: mirror/kv:7");
    let exporter = "containers: [{name: redis-exporter, image: quay.io/opstree/redis-exporter}, ";
    let facts = facts(&set.replace("containers: [", exporter));
    let replication = Wanted::RedisReplication("cache".to_owned());
    let workload = resolve(&facts, &replication, &Choice::default()).unwrap();
    assert_eq!(workload.members[0].container, "cache");
    let by_hand = resolve(&facts, &Wanted::StatefulSet("cache".to_owned()), &Choice::default());
    assert!(matches!(by_hand, Err(Error::NoRedis { .. })), "{by_hand:?}");
}

#[test]
fn a_service_of_one_pod_is_a_name_of_it_and_one_of_several_is_not() {
    let service = |name: &str, key: &str, value: &str| {
        format!(
            "kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.7, selector: {{{key}: {value}}}}}"
        )
    };
    let one = service("only", "app", "cache");
    let cache = found(&format!("{}\n---\n{one}", alone("args: []", "")), "cache");
    for host in ["10.96.0.7", "only.shop.svc.cluster.local"] {
        assert!(cache.member_at(&NodeAddress::new(host, 6379)).is_some(), "{host}");
    }
    let all = service("all", "app", "redis");
    let shop = found(&format!("{SHOP}\n---\n{all}"), "redis");
    assert!(shop.at(&NodeAddress::new("10.96.0.7", 6379)).is_none());
}

#[test]
fn pods_that_do_not_run_are_counted_and_never_reached() {
    let mut facts = facts(SHOP);
    facts.pods[0].runs = false;
    facts.pods[1].ip = None;
    let wanted = Wanted::Selector(Labels::from([("app".to_owned(), "redis".to_owned())]));
    let workload = resolve(&facts, &wanted, &Choice::default()).unwrap();
    assert_eq!(workload.members.len(), 1);
    assert_eq!(workload.unsure, ["2 of its 3 pods do not run"]);
    facts.pods[2].runs = false;
    let error = resolve(&facts, &wanted, &Choice::default()).unwrap_err();
    assert!(matches!(error, Error::NothingRuns { .. }), "{error}");
}

#[test]
fn who_names_nothing_that_is_there_is_told_what_is() {
    let wanted = Wanted::StatefulSet("rediss".to_owned());
    let error = resolve(&facts(SHOP), &wanted, &Choice::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "namespace shop has no StatefulSet rediss with pods; it has StatefulSet redis",
    );
    let wanted = Wanted::StatefulSet("redis".to_owned());
    let choice = Choice { container: Some("server".to_owned()), port: None };
    let error = resolve(&facts(SHOP), &wanted, &choice).unwrap_err().to_string();
    assert!(error.ends_with("has no container \"server\"; it has redis"), "{error}");
    assert_eq!(
        inventory(&facts(
            &alone("", "").replace("image: redis", "image: nginx").replace("6379", "80")
        )),
        []
    );
}
