//! The smoke test, which `make lab-smoke` runs alone.

use anyhow::{Result, ensure};
use keyplane_e2e::smoke;

pub(crate) fn a_whole_cluster_works_and_goes_on_working_with_a_control_plane_machine_less() -> Result<()> {
    let report = smoke::run();
    ensure!(report.failures().is_empty(), "{}: {}", report.summary(), report.failures().join("; "));
    Ok(())
}
