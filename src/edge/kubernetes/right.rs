//! What a call to the API server needs, in the words of RBAC. Asks for nothing.

use std::fmt;

/// A verb on a resource, such as `create` on `pods/exec`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: &'static str,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// In plural, with the subresource behind a `/`.
    pub resource: &'static str,
    /// None for the whole cluster.
    pub namespace: Option<String>,
}

impl Right {
    /// On a resource of the core group, in the whole cluster.
    pub const fn new(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, group: "", resource, namespace: None }
    }

    #[must_use]
    pub fn of_group(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    /// The rule of a Role that grants it.
    pub fn rule(&self) -> String {
        let Self { verb, group, resource, namespace: _ } = self;
        format!("{{apiGroups: [\"{group}\"], resources: [{resource}], verbs: [{verb}]}}")
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, " {}", self.verb)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => f.write_str(" in the whole cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_written_as_people_and_roles_name_it() {
        let right = Right::new("list", "statefulsets").of_group("apps").in_namespace("shop");
        assert_eq!(right.to_string(), "statefulsets.apps list in namespace shop");
        assert_eq!(
            right.rule(),
            "{apiGroups: [\"apps\"], resources: [statefulsets], verbs: [list]}",
        );
        let right = Right::new("get", "namespaces");
        assert_eq!(right.to_string(), "namespaces get in the whole cluster");
    }
}
