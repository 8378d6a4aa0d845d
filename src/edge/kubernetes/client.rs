//! The way to an API server: a kubeconfig, or the service account of the pod that this runs in. Connects to nothing by itself.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::time::timeout;

use super::{Error, Right};

/// For one request; a stream lives longer once it is open.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const API_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";

/// A variable of the environment by its name.
pub type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Cheap to clone.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    namespace: String,
    origin: String,
    in_pod: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Client {
    /// By the context of a kubeconfig, where one is wanted or `KUBECONFIG` is set; else by the
    /// service account of this pod; else by `~/.kube/config`. Asks nothing yet.
    pub async fn new(context: Option<&str>, environment: Environment<'_>) -> Result<Self, Error> {
        let in_pod = environment(API_VARIABLE).is_some() && Path::new(TOKEN_FILE).exists();
        let (config, origin) = match kubeconfig_files(environment) {
            Files::Named(files) => read_all(&files, context).await?,
            Files::Usual(_) | Files::None if in_pod && context.is_none() => {
                let config = Config::incluster()
                    .map_err(|error| Error::ServiceAccount { finding: error.to_string() })?;
                (config, "the service account of this pod".to_owned())
            }
            Files::Usual(file) if file.exists() => read_all(&[file], context).await?,
            Files::Usual(file) => {
                let looked = format!(
                    "KUBECONFIG is not set, {} does not exist, and no service account is mounted at {TOKEN_FILE}",
                    file.display(),
                );
                return Err(Error::NoCluster { looked });
            }
            Files::None => {
                let looked = format!(
                    "neither KUBECONFIG nor HOME is set, and no service account is mounted at {TOKEN_FILE}"
                );
                return Err(Error::NoCluster { looked });
            }
        };
        let mut config = config;
        config.connect_timeout = Some(CONNECT_LIMIT);
        let namespace = config.default_namespace.clone();
        let kube = kube::Client::try_from(config).map_err(|error| Error::Kubeconfig {
            origin: origin.clone(),
            finding: error.to_string(),
        })?;
        Ok(Self { kube, namespace, origin, in_pod })
    }

    /// For APIs of the client library.
    pub fn kube(&self) -> kube::Client {
        self.kube.clone()
    }

    /// The namespace of the context, or of this pod.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where the way to the cluster was found, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether this runs in a pod, from where other pods may be reached directly.
    pub const fn is_in_pod(&self) -> bool {
        self.in_pod
    }

    /// One request within a limit of time; what it may fail by is told with the right that it needs.
    pub async fn ask<T>(
        &self,
        attempt: &str,
        right: &Right,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        // The library's futures are large.
        match timeout(REQUEST_LIMIT, Box::pin(request)).await {
            Ok(answer) => answer.map_err(|error| Error::of(attempt, right, error)),
            Err(_) => Err(Error::Timeout { attempt: attempt.to_owned(), limit: REQUEST_LIMIT }),
        }
    }
}

enum Files {
    /// By `KUBECONFIG`.
    Named(Vec<PathBuf>),
    /// The one in the home folder, which need not be there.
    Usual(PathBuf),
    None,
}

fn kubeconfig_files(environment: Environment<'_>) -> Files {
    let named: Vec<PathBuf> = environment("KUBECONFIG")
        .unwrap_or_default()
        .split(':')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    match environment("HOME") {
        _ if !named.is_empty() => Files::Named(named),
        Some(home) => Files::Usual(Path::new(&home).join(".kube/config")),
        None => Files::None,
    }
}

/// The files as one, of which the first that says something wins, as kubectl does it.
async fn read_all(files: &[PathBuf], context: Option<&str>) -> Result<(Config, String), Error> {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let origin = names.join(":");
    let failed = |error| of_kubeconfig(&origin, error);
    let mut merged = Kubeconfig::default();
    for file in files {
        let one = Kubeconfig::read_from(file).map_err(failed)?;
        merged = merged.merge(one).map_err(failed)?;
    }
    let known = merged.contexts.iter().map(|context| context.name.clone()).collect::<Vec<_>>();
    if let Some(wanted) = context.filter(|wanted| !known.iter().any(|name| name == wanted)) {
        let finding = match known.as_slice() {
            [] => format!("it has no context {wanted:?}, nor any other"),
            _ => format!("it has no context {wanted:?}; it has {}", known.join(", ")),
        };
        return Err(Error::Kubeconfig { origin, finding });
    }
    let options =
        KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(merged, &options).await.map_err(failed)?;
    Ok((config, origin))
}

/// Without the lines of the file, which may hold a token.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors word themselves")]
fn of_kubeconfig(origin: &str, error: KubeconfigError) -> Error {
    let finding = match error {
        KubeconfigError::ReadConfig(source, path) => {
            return Error::ReadKubeconfig { path, source };
        }
        KubeconfigError::Parse(error) => match error.location() {
            Some(place) => format!("line {} is no valid YAML of a kubeconfig", place.line()),
            None => "it is no valid YAML of a kubeconfig".to_owned(),
        },
        other => other.to_string(),
    };
    Error::Kubeconfig { origin: origin.to_owned(), finding }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: u, user: {token: hunter2}}]
contexts: [{name: shop, context: {cluster: c, user: u, namespace: shop}}]
current-context: shop
";

    async fn open(text: &str, context: Option<&str>) -> Result<Client, Error> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        Client::new(context, &|name| (name == "KUBECONFIG").then(|| path.clone())).await
    }

    #[tokio::test]
    async fn a_kubeconfig_is_read_with_its_namespace() {
        let client = open(KUBECONFIG, None).await.unwrap();
        assert_eq!(client.namespace(), "shop");
        assert!(!client.is_in_pod());
        assert!(!format!("{client:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn an_unknown_context_is_told_with_the_known_ones() {
        let error = open(KUBECONFIG, Some("prod")).await.unwrap_err().to_string();
        assert!(error.ends_with("it has no context \"prod\"; it has shop"), "{error}");
    }

    #[tokio::test]
    async fn a_broken_kubeconfig_is_told_without_its_secrets() {
        let text = KUBECONFIG.replace("hunter2}", "hunter2]");
        let error = open(&text, None).await.unwrap_err();
        assert!(matches!(error, Error::Kubeconfig { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[tokio::test]
    async fn without_any_way_the_error_says_where_it_was_looked_for() {
        let error = Client::new(None, &|name| (name == "HOME").then(|| "/nowhere".to_owned()));
        let error = error.await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/.kube/config does not exist"), "{error}");
    }

    #[tokio::test]
    async fn an_api_server_that_is_not_there_is_unreachable() {
        let client = open(KUBECONFIG, None).await.unwrap();
        let right = Right::new("get", "version");
        let asked = client.ask("ask for the version", &right, client.kube.apiserver_version());
        let error = asked.await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
}
