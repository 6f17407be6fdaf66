//! The input of the query protocols: form data with numbered names for lists.

use crate::form;

/// The parameters of a call, in the order in which they came.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads form data. A body that is none, such as JSON, gives parameters that nobody asks for.
    pub(super) fn parse(body: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self(form::parse(body).iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    /// The value of the parameter `name`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The values of `name.1`, `name.2` and so on, up to the first number that is missing.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|number| self.value(&format!("{name}.{number}"))).collect()
    }

    /// The filters of a Describe call, each with its accepted values.
    pub(super) fn filters(&self) -> Vec<(&str, Vec<&str>)> {
        (1..)
            .map_while(|number| {
                let name = self.value(&format!("Filter.{number}.Name"))?;
                Some((name, self.list(&format!("Filter.{number}.Value"))))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_filters_are_numbered() {
        let query = Query::parse(
            b"Action=DescribeInstances&InstanceId.1=i-1&InstanceId.2=i-2&InstanceId.4=i-4\
              &Filter.1.Name=tag%3AName&Filter.1.Value.1=web+1&Filter.1.Value.2=b&Filter.2.Name=instance-id",
        );
        assert_eq!(query.value("Action"), Some("DescribeInstances"));
        assert_eq!(query.list("InstanceId"), ["i-1", "i-2"]);
        assert_eq!(query.filters(), [("tag:Name", vec!["web 1", "b"]), ("instance-id", vec![])]);
    }
}
