//! DescribeRegions: lists all regions of this endpoint. Each region returns the same list.

use super::{Call, NAMESPACE, filter};
use crate::{
    api::{error::ApiError, query::Query, xml::Xml},
    world::AwsRegion,
};

/// The regions by name and filter. All are enabled, so `AllRegions` makes no difference.
pub(super) fn describe(call: &Call<'_>, query: &Query) -> Result<String, ApiError> {
    let names = query.list("RegionName");
    if let Some(unknown) = names.iter().find(|name| AwsRegion::parse(name).is_none()) {
        let message = format!("Invalid region name: '{unknown}'");
        return Err(ApiError::new("InvalidParameterValue", message));
    }
    let mut found = AwsRegion::ALL.to_vec();
    found.retain(|region| names.is_empty() || names.contains(&region.name()));
    for (name, patterns) in filter::read(query)? {
        let field = field(name).ok_or_else(|| filter::invalid(name))?;
        found.retain(|region| filter::accepts(&patterns, &field(*region)));
    }
    let mut xml = Xml::document();
    xml.root("DescribeRegionsResponse", NAMESPACE, |xml| {
        xml.text("requestId", call.request_id);
        xml.list("regionInfo", found, |xml, region| {
            xml.text("regionName", region);
            xml.text("regionEndpoint", endpoint(region));
            xml.text("optInStatus", OPT_IN_STATUS);
            xml.list("geographySet", [region], |xml, region| xml.text("name", region.geography()));
        });
    });
    Ok(xml.finish())
}

/// The field that the filter `name` compares.
fn field(name: &str) -> Option<fn(AwsRegion) -> String> {
    Some(match name {
        "endpoint" => endpoint,
        "opt-in-status" => |_| OPT_IN_STATUS.to_owned(),
        "region-name" => |region| region.name().to_owned(),
        _ => return None,
    })
}

fn endpoint(region: AwsRegion) -> String {
    format!("ec2.{region}.amazonaws.com")
}

const OPT_IN_STATUS: &str = "opt-in-not-required";
