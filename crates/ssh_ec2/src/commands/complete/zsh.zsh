#compdef ssh_ec2
# zsh completion of ssh_ec2: eval "$(ssh_ec2 completions zsh)", after compinit
_ssh_ec2() {
    local -a found
    found=("${(@f)$(${words[1]} __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    if (( ${#found} )); then
        compadd -S '' -- ${(M)found:#*:}
        compadd -- ${found:#*:}
    else
        _files
    fi
}
compdef _ssh_ec2 ssh_ec2
