# Runs a command on an instance with libssh, which finds the key in SSH_AUTH_SOCK.
import sys
from pylibsshext.session import Session

line, user, host, _, command = sys.argv[1:]
session = Session()
session.connect(
    host=host, user=user, port=22, proxycommand=line, host_key_checking=False, look_for_keys=True
)
channel = session.new_channel()
sys.stdout.buffer.write(channel.exec_command(command).stdout)
channel.close()
session.close()
