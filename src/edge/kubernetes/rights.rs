//! Whether we have a right, asked of the API server. Needs no right itself.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

use super::{Client, Error, Right};

pub async fn has(client: &Client, right: &Right) -> Result<bool, Error> {
    // The one namespace that we look at in the whole cluster.
    let name = (right.resource == "namespaces").then_some("kube-system");
    ask(client, right, name).await
}

/// For these alone, where it is granted by `resourceNames`.
pub async fn has_for_each(client: &Client, right: &Right, names: &[&str]) -> Result<bool, Error> {
    for name in names {
        if !ask(client, right, Some(name)).await? {
            return Ok(false);
        }
    }
    Ok(!names.is_empty())
}

async fn ask(client: &Client, right: &Right, name: Option<&str>) -> Result<bool, Error> {
    let Right { verb, group, resource, namespace } = right;
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (*resource, None),
    };
    let attributes = ResourceAttributes {
        verb: Some((*verb).to_owned()),
        group: Some((*group).to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        namespace: namespace.clone(),
        name: name.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.kube());
    let asked = Right::new("create", "selfsubjectaccessreviews").of_group("authorization.k8s.io");
    let attempt = format!("ask whether {right} is allowed");
    let answer = client.ask(&attempt, &asked, api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
