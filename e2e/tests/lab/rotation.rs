//! Everything is rotated under a load, on the smallest cluster that shows it: no request fails, and no workload's pod is
//! restarted. `make lab-rotation` does the same on three control-plane machines and two workers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use keyplane_e2e::load::Load;
use keyplane_e2e::rotation_lab::{Scene, Size, rotate_leaves};

/// The API server looks at its serving pair every minute.
const SETTLE: Duration = Duration::from_secs(75);

#[test]
#[ignore = "needs root and the lab's parts: make test"]
fn nobody_notices_a_rotation() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let scene = Scene::set_up(&Size::small(), &tell)?;
    let load = Load::start(&scene, "before")?;
    tell("the load runs");
    let outcome = rotate_leaves(&scene, &load, SETTLE, &tell);
    let tally = load.stop();
    eprintln!("{}\n{}\n{}", tally.table(), tally.told_failures(), tally.summary());
    outcome?;
    ensure!(tally.total().failed == 0, "{}", tally.summary());
    for client in Load::CLIENTS {
        ensure!(tally.total_of(client).requests > 0, "{client} has asked nothing");
    }
    Ok(())
}
