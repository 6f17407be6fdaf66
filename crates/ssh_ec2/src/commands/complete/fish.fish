# fish completion of ssh_ec2: ssh_ec2 completions fish | source
function __ssh_ec2_complete
    set -l words (commandline -opc) (commandline -ct)
    command $words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c ssh_ec2 -a '(__ssh_ec2_complete)'
