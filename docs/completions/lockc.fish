# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_lockc_global_optspecs
    string join \n h/help V/version
end

function __fish_lockc_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_lockc_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_lockc_using_subcommand
    set -l cmd (__fish_lockc_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c lockc -n "__fish_lockc_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_needs_command" -s V -l version -d 'Print version'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "check" -d 'Checks the configuration, all of it at once'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "events" -d 'Shows what was denied or audited, and starts and ends of containers'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "explain" -d 'Says which policy a container gets, why, and whether it starts'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "learn" -d 'Prints a policy that allows what was audited or denied, and nothing else that its containers\' policy denies'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "metrics" -d 'Prints figures in the text format of `OpenMetrics`; docs/operations.md describes them'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "policy" -d 'Shows policies'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "ps" -d 'Lists the containers of this machine: their policies, and what was denied them'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "run" -d 'Enforces until it is told to stop (SIGTERM); what is enforced stays so'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "status" -d 'Shows whether the daemon runs, what it enforces and has done, and whether the configuration on disk is in force'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "try" -d 'Shows what a configuration would change for the containers that run now, before it is put in place'
complete -c lockc -n "__fish_lockc_needs_command" -f -a "unload" -d 'Removes everything that lockc keeps in the kernel: no container is contained any more'
complete -c lockc -n "__fish_lockc_using_subcommand check" -l config -d 'The configuration; *.toml in lockc.d beside it are read as well' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand check" -l format -d 'How the outcome is printed' -r -f -a "text\t'For people'
json\t'One JSON object'"
complete -c lockc -n "__fish_lockc_using_subcommand check" -l host -d 'Check this machine too: user, PID namespace, kernel, BTF, security modules, boot parameter, runtimes, and who can write the configuration'
complete -c lockc -n "__fish_lockc_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand events" -l container -d 'Only of the container with this name, or whose id begins so' -r
complete -c lockc -n "__fish_lockc_using_subcommand events" -l since -d 'Only what is later: a time as `2026-01-31T12:00:00Z`, or how long ago, as `90m` or `1h 30m`' -r
complete -c lockc -n "__fish_lockc_using_subcommand events" -l config -d 'The configuration, which says where events are' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand events" -l file -d 'A file of events, instead of the configured one' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand events" -l format -d 'How they are printed; JSON is one object a line, and described in docs/operations.md' -r -f -a "text\t'For people'
json\t'One JSON object'"
complete -c lockc -n "__fish_lockc_using_subcommand events" -s f -l follow -d 'Waits for more'
complete -c lockc -n "__fish_lockc_using_subcommand events" -l denied -d 'Only what was denied'
complete -c lockc -n "__fish_lockc_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand explain" -l event -d 'Number of an event, as `lockc events` shows it: what was decided by which policy, where that is configured, and the smallest change that would have allowed it' -r
complete -c lockc -n "__fish_lockc_using_subcommand explain" -l config -d 'The configuration' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand explain" -l format -d 'How it is printed; JSON is described in docs/explain.md' -r -f -a "text\t'For people'
json\t'One JSON object'"
complete -c lockc -n "__fish_lockc_using_subcommand explain" -l id -d 'Container id of a bundle; otherwise what the bundle\'s path names' -r
complete -c lockc -n "__fish_lockc_using_subcommand explain" -l owner -d 'User id of who starts the runtime; otherwise who owns the bundle, or the state directory' -r
complete -c lockc -n "__fish_lockc_using_subcommand explain" -l runtime -d 'Name of the [[runtime]]; otherwise the one whose state it is, or the first' -r
complete -c lockc -n "__fish_lockc_using_subcommand explain" -l root -d 'The runtime\'s state directory, as in its own --root; otherwise those of runtimes and engines' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand learn" -l container -d 'Only of the container with this name, or whose id begins so' -r
complete -c lockc -n "__fish_lockc_using_subcommand learn" -l since -d 'Only what is later: a time as `2026-01-31T12:00:00Z`, or how long ago, as `90m` or `1h 30m`' -r
complete -c lockc -n "__fish_lockc_using_subcommand learn" -l config -d 'The configuration, which says where events are' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand learn" -l file -d 'A file of events, instead of the configured one' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand learn" -l name -d 'Name of the policy' -r
complete -c lockc -n "__fish_lockc_using_subcommand learn" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand metrics" -l output -d 'A file that gets them at one go, for the textfile collector of `node_exporter`; its directory must be there' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand policy; and not __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c lockc -n "__fish_lockc_using_subcommand policy; and not __fish_seen_subcommand_from show" -f -a "show" -d 'Prints a policy with everything that it inherits'
complete -c lockc -n "__fish_lockc_using_subcommand policy; and __fish_seen_subcommand_from show" -l config -d 'The configuration' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand policy; and __fish_seen_subcommand_from show" -l format -d 'How it is printed' -r -f -a "toml\t'A table of the configuration'
json\t'One JSON object'"
complete -c lockc -n "__fish_lockc_using_subcommand policy; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand ps" -l format -d 'How it is printed; JSON is described in docs/operations.md' -r -f -a "text\t'For people'
json\t'One JSON object'"
complete -c lockc -n "__fish_lockc_using_subcommand ps" -s w -l wide -d 'All that is known, and nothing cut: on a terminal that is too narrow for that, a block of lines per container'
complete -c lockc -n "__fish_lockc_using_subcommand ps" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand run" -l config -d 'The configuration' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand status" -l format -d 'How it is printed; JSON is described in docs/operations.md' -r -f -a "text\t'For people'
json\t'One JSON object'"
complete -c lockc -n "__fish_lockc_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand try" -l config -d 'The configuration in place, with which policies are compared' -r -F
complete -c lockc -n "__fish_lockc_using_subcommand try" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lockc -n "__fish_lockc_using_subcommand unload" -s h -l help -d 'Print help (see more with \'--help\')'
