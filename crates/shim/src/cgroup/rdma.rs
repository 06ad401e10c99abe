// SPDX-License-Identifier: Apache-2.0
//! `rdma`, the same on v1 and v2.

use std::path::Path;

use super::{Rdma, fs};
use crate::runtime::Result;

pub(super) fn apply(dir: &Path, limits: &[Rdma]) -> Result<()> {
    limits.iter().try_for_each(|limit| fs::set(dir, "rdma.max", &line(limit), "linux.resources.rdma"))
}

fn line(limit: &Rdma) -> String {
    let part = |name: &str, n: Option<u32>| n.map_or_else(String::new, |n| format!(" {name}={n}"));
    format!("{}{}{}", limit.device, part("hca_handle", limit.handles), part("hca_object", limit.objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_set() {
        let limit = Rdma { device: "mlx5_0".to_owned(), handles: Some(2), objects: None };
        assert_eq!(line(&limit), "mlx5_0 hca_handle=2");
        assert_eq!(line(&Rdma { objects: Some(9), ..limit }), "mlx5_0 hca_handle=2 hca_object=9");
    }
}
