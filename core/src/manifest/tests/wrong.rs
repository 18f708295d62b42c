//! Manifests that are refused, each a file in `golden/`, with the whole text people read beside it.

use super::check;

/// One test for each pair of files.
macro_rules! golden {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(
                include_str!(concat!("golden/", stringify!($name), ".toml")),
                include_str!(concat!("golden/", stringify!($name), ".txt")),
            );
        })*
    };
}

golden! {
    an_empty_file_lacks_everything_that_is_required
    text_that_is_not_toml_is_pointed_at
    a_list_that_is_never_closed_is_pointed_at
    a_key_that_stands_twice_is_pointed_at
    misspelt_keys_and_tables_are_guessed_at
    a_key_in_the_wrong_table_is_sent_home
    a_key_nobody_knows_gets_the_list_of_those_that_are
    what_is_planned_is_refused_until_it_works
    a_strategy_nobody_knows_is_refused
    a_wrong_strategy_hides_no_other_mistake
    wrong_types_say_what_would_be_right
    a_table_written_as_a_list_is_refused
    durations_need_a_unit_and_have_bounds
    a_service_needs_hosts
    a_single_host_is_still_a_list
    hosts_are_names_and_stand_once
    ports_are_ports_and_stand_once
    one_port_is_still_a_list
    a_service_has_at_most_eight_ports
    a_service_has_a_port
    a_user_has_a_name
    a_placeholder_nobody_fills_in_is_refused
    an_archive_is_named_by_its_version
    an_archive_knows_no_port
    a_command_is_not_for_a_shell
    a_quotation_that_never_ends_is_pointed_at
    a_command_names_a_program
    a_closed_list_shows_its_words
    side_by_side_needs_two_ports
    a_hand_over_and_a_balancer_exclude_each_other
    a_hand_over_needs_a_socket
    a_hand_over_needs_two_ports
    a_public_port_is_no_slots
    an_address_to_listen_on_has_a_number_and_a_port
    in_place_needs_a_host_that_may_be_missing
    blue_green_needs_two_ports
    blue_green_switches_everything_at_once
    blue_green_needs_a_balancer
    a_preview_needs_a_switch
    a_preview_is_one_header_or_one_cookie
    a_preview_has_a_name_and_a_value
    a_preview_waits_for_a_persons_word
    who_is_withdrawn_is_told_so
    who_is_withdrawn_is_followed_in_its_place
    a_check_that_always_passes_withdraws_nobody
    a_balancer_notices_nothing_at_once
    what_is_kept_needs_a_slot_of_its_own
    what_is_kept_needs_a_balancer_that_keeps_requests_away
    a_canary_needs_steps
    a_hook_is_a_command_with_its_time
    a_share_needs_a_balancer
    steps_grow
    steps_are_shares_or_hosts_with_a_time
    a_share_in_place_leaves_somebody_for_the_rest
    steps_belong_to_a_canary
    recreate_spares_nobody
    one_wave_asks_for_nobodys_word
    amounts_are_whole_numbers_or_shares
    waves_grow
    a_wave_has_hosts
    a_wave_has_no_more_hosts_than_there_are
    rules_and_users_are_what_a_balancer_can_tell
    rules_need_a_balancer
    rules_leave_somebody_for_the_rest
    users_are_kept_on_a_side_where_there_are_two
    nobody_can_prove_that_nothing_failed_while_nobody_serves
    one_host_in_place_proves_nothing_either
    a_secret_is_where_it_is_found
    a_secret_is_refused_and_never_shown
    a_secret_in_a_command_is_refused_and_never_shown
    a_secret_is_not_shown_in_a_file_that_is_no_toml
    the_environment_takes_strings_with_plain_names
    one_probe_decides
    a_probe_is_needed
    a_probe_that_asks_nothing_is_none
    a_probe_asks_the_instance_and_nobody_else
    marks_stand_below_wide_characters
    what_traffic_decides_needs_figures_and_somebody_who_counts
    what_instances_count_is_two_counters_on_a_page
    counters_of_requests_and_errors_differ
    a_counter_of_requests_needs_one_of_errors
    a_prometheus_is_asked_for_counters_of_one_release
    a_prometheus_is_asked_at_a_plain_url
}
