//! The tests on real parts. They are one program, and [`runner`] starts each as a process of its own.

mod addons;
mod admission;
mod agent;
mod approver;
mod chart;
mod csr;
mod dual_stack;
mod emergencies;
mod encryption;
mod examples;
mod external_signing;
mod first_light;
mod kubeadm;
mod machines;
mod operator;
mod options;
mod oracle;
mod own_authority;
mod renewal;
mod rotation;
mod smoke;
mod systemd;
mod three_nodes;
mod upgrade;
mod whole_lab;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use keyplane_e2e::runner::{self, Test};

fn main() -> ExitCode {
    runner::main(&TESTS)
}

macro_rules! table {
    ($($module:ident :: $name:ident, $weight:literal, $seconds:literal;)*) => {
        [$(Test {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: $module::$name,
            weight: $weight,
            expected: Duration::from_secs($seconds),
        }),*]
    };
}

/// Every test with its weight and the seconds that it took on two cores beside the others. A test that is missing here is
/// dead code, which `make check` refuses.
const TESTS: [Test; 41] = table! {
    rotation::each_stage_lets_in_whom_it_says, 3, 900;
    upgrade::a_minor_upgrade_goes_node_by_node_and_a_bad_flag_stops_at_the_first, 3, 500;
    renewal::certificates_are_renewed_under_a_running_cluster_and_nothing_restarts, 2, 420;
    emergencies::a_cluster_outlives_its_management_cluster_and_the_theft_of_all_its_keys, 4, 400;
    rotation::nobody_notices_a_rotation, 4, 330;
    three_nodes::control_plane_nodes_join_one_after_the_other_and_a_lost_one_is_named_and_replaced, 4, 320;
    encryption::everything_stored_is_encrypted_gets_another_key_and_is_decrypted_under_a_running_cluster, 2, 300;
    smoke::a_whole_cluster_works_and_goes_on_working_with_a_control_plane_machine_less, 5, 300;
    operator::an_operator_without_machines_does_what_it_should_and_nothing_else, 1, 280;
    csr::real_kubelets_get_the_certificates_that_they_may_have_and_no_others, 3, 240;
    kubeadm::kubeadm_works_on_the_machines_as_if_it_had_made_the_cluster, 3, 240;
    worker::a_worker_joins_with_its_script_and_the_token_lives_only_while_a_machine_is_missing, 3, 240;
    systemd::servers_without_nodes_and_their_workers_run_as_the_units_that_keyplane_wrote, 3, 200;
    chart::a_release_approves_its_own_clusters_kubelets_and_becomes_an_operator, 2, 180;
    addons::add_ons_run_are_mended_keep_what_is_the_users_and_are_taken_away, 2, 160;
    options::a_guarded_cluster_behind_a_proxy_boots_and_logs_and_refuses_and_knows_its_users, 2, 160;
    agent::an_agent_carries_what_changes_and_may_do_nothing_else, 2, 150;
    first_light::a_cluster_boots_from_what_keyplane_wrote_and_its_keys_do_what_they_are_for, 2, 150;
    whole_lab::a_cluster_of_kubeadm_with_every_add_on_runs_in_the_lab, 4, 150;
    whole_lab::the_older_minor_runs_in_the_lab_too_and_with_iptables, 4, 150;
    chart::every_right_of_the_chart_is_used_and_no_other_is_needed, 2, 120;
    operator::killed_at_any_point_of_the_first_reconciliation_it_ends_with_one_set_of_keys, 1, 120;
    approver::an_approver_with_few_rights_serves_a_cluster_that_kubeadm_made, 2, 100;
    external_signing::a_cluster_boots_of_which_somebody_outside_signs_every_certificate, 2, 100;
    own_authority::a_cluster_boots_below_a_root_of_the_users_who_needs_nothing_but_the_root, 2, 90;
    dual_stack::the_dual_stack_example_boots_with_ipv6_first_and_its_node_reports_both_families, 2, 80;
    machines::a_control_plane_made_by_kubeadm_boots_on_a_machine, 2, 80;
    admission::bad_input_is_refused_at_admission_with_the_field_and_the_cure, 1, 60;
    operator::an_operator_without_its_kinds_says_so_and_begins_when_they_come, 1, 40;
    examples::every_example_is_admitted_and_rendered, 1, 30;
    machines::the_management_cluster_tells_who_wrote_what, 1, 30;
    oracle::render_and_kubeadm_agree_file_by_file_save_the_documented_differences, 1, 30;
    machines::a_load_balancer_leads_only_to_what_is_ready, 1, 20;
    machines::a_unit_runs_until_it_is_stopped_and_again_after_a_failure, 1, 15;
    addons::add_ons_are_those_that_kubeadm_prints_save_the_documented_differences, 1, 10;
    chart::the_charts_are_sound_and_values_that_make_no_sense_are_refused, 1, 10;
    machines::a_machine_keeps_its_disk_over_a_loss_of_power_and_hears_nobody_without_its_cable, 1, 10;
    own_authority::kubeadm_and_openssl_take_what_is_rendered_below_a_root_of_the_users, 1, 10;
    addons::the_images_are_those_that_kubeadm_lists, 1, 5;
    machines::a_machine_leaves_nothing_behind, 1, 5;
    machines::a_dead_owners_lab_is_swept_by_the_next_one, 1, 5;
};
