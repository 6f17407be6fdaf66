# bash completion of ssh_ec2: eval "$(ssh_ec2 completions bash)"
_ssh_ec2() {
    local line=${COMP_LINE:0:COMP_POINT}
    local whole=${line##*[[:space:]]} part=${COMP_WORDS[COMP_CWORD]} words word
    # bash splits words at colons and such, and wants only the last part replaced.
    [[ $part == [@:=] ]] && part=
    local done=${whole%"$part"}
    # But an @ in front of it goes with it.
    done=${done%@}
    read -ra words <<<"${line%"$whole"}"
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("${word#"$done"}")
    done < <("${words[0]}" __complete -- "${words[@]:1}" "$whole" 2>/dev/null)
    # What ends in a colon goes on with a path.
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace
}
complete -o default -F _ssh_ec2 ssh_ec2
