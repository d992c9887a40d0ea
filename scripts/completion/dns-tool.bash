# shellcheck shell=bash
# Completion of dns-tool for bash. Source it, or put it into /usr/share/bash-completion/completions as dns-tool.
# The options stand here in the order of the help: tests/manual.rs compares.

_dns_tool() {
    local subcommands="query pin check"
    local options="--address --port --reuse-port --allow --rate-limit --resolver-addr --resolver-fqdn --resolver-pin
        --pins --pin-mode --pin-rollover --state-dir --resolver --resolver-ca --key-exchange --timeout --hosts --route --special-names
        --rebind-protection --rebind-allow --cache-size
        --serve-stale --max-memory --max-clients --max-clients-per-address --sessions --max-pending --upstream-rate-limit --monitor
        --slo-latency --config --check-config --user --log-level --query-log --query-log-clients"
    local of_all="--json"
    local of_query="--direct --tcp"
    local without_value="--reuse-port --rebind-protection --check-config --query-log --query-log-clients --json --direct --tcp"
    local files="--pins --resolver-ca --hosts --config"
    local folders="--state-dir"
    local modes="strict report"
    local exchanges="prefer require classical"
    local treatments="answer relay"
    local levels="error warn info debug trace"

    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    # An equals sign is a word of its own here.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    if [[ $before == -?* ]]; then
        before=${before#-}
        before=--${before#-}
        if _dns_tool_has "$before" "$files"; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
        elif _dns_tool_has "$before" "$folders"; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
        fi
        case $before in
            --pin-mode) mapfile -t COMPREPLY < <(compgen -W "$modes" -- "$word") && return ;;
            --key-exchange) mapfile -t COMPREPLY < <(compgen -W "$exchanges" -- "$word") && return ;;
            --special-names) mapfile -t COMPREPLY < <(compgen -W "$treatments" -- "$word") && return ;;
            --log-level) mapfile -t COMPREPLY < <(compgen -W "$levels" -- "$word") && return ;;
            --user) mapfile -t COMPREPLY < <(compgen -u -- "$word") && return ;;
        esac
        # Other values nobody can guess.
        if _dns_tool_has "$before" "$options" && ! _dns_tool_has "$before" "$without_value"; then
            return
        fi
    fi

    if [[ $word == -* ]]; then
        case ${COMP_WORDS[1]} in
            query) options+=" $of_all $of_query" ;;
            pin | check) options+=" $of_all" ;;
        esac
        options+=" --help --help-all --version"
        # With one dash where one was typed.
        [[ $word == --* || $word == - ]] || options=${options//--/-}
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    elif ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$subcommands" -- "$word")
    fi
}

# _dns_tool_has WORD WORDS: whether it is one of them.
_dns_tool_has() {
    [[ " ${2//[[:space:]]/ } " == *" $1 "* ]]
}

complete -F _dns_tool dns-tool
