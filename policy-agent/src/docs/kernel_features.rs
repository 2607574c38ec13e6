//! The table of kernel features in `docs/kernel-support.md`, from the values in `dataplane`.

use std::{fs, path::Path};

use super::is_current;
use crate::dataplane::features::{ALL_FEATURES, KernelFeature};

const BEGINNING: &str = "\
<!-- Generated from dataplane/features: UPDATE_DOCS=1 cargo test --lib -- docs:: -->

";
const END: &str = "\n<!-- End of the generated table -->";
const TABLE_HEAD: &str = "| feature | since | without it |\n|---|---|---|\n";

fn row(feature: &KernelFeature) -> String {
    format!("| {} | {} | {} |\n", feature.name, feature.since, feature.fallback)
}

#[test]
fn the_table_of_kernel_features_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernel-support.md");
    let page = fs::read_to_string(path).expect("the page");
    let (before, rest) = page.split_once(BEGINNING).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    let rows: String = ALL_FEATURES.into_iter().map(row).collect();
    let expected = format!("{before}{BEGINNING}{TABLE_HEAD}{rows}{END}{after}");
    is_current("kernel-support.md", &expected);
}
