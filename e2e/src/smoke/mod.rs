//! The smoke test: a whole cluster, and what its owner tries on it first, step by step with kubectl.
//!
//! Three control-plane machines in three failure domains behind a load balancer, one worker that joins with its pool's
//! join data, CoreDNS, kube-proxy and Flannel. Then one control-plane machine is destroyed, and everything is tried again.

mod control_plane;
mod files;
mod report;
mod scene;
mod workload;

pub use report::Report;

/// Builds the cluster, tries everything, and prints each step with what it saw. A step that fails does not stop the
/// ones after it, unless the cluster does not come up, so that there is nothing to try.
#[must_use]
pub fn run() -> Report {
    let mut report = Report::begin();
    let scene = scene::Scene::set_up(&report);
    let Some(mut scene) = report.keep("the cluster comes up", scene) else { return report };
    files::check(&scene, &mut report);
    control_plane::check(&scene, &mut report);
    workload::check(&scene, &mut report);
    control_plane::check_leader_election(&scene, &mut report);
    scene.lose_a_control_plane_machine(&mut report);
    control_plane::check_what_is_left(&scene, &mut report);
    workload::check_again(&scene, &mut report);
    report
}
