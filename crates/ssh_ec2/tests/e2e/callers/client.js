// Runs a command on an instance: ssh2 over a child's standard streams, which are sockets.
const { spawn } = require('child_process');
const { Duplex } = require('stream');
const { Client } = require('ssh2');

const [line, username, , agent, command] = process.argv.slice(1);
const [program, ...words] = line.split(' ');
const proxy = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] });
const client = new Client();
client.on('error', (error) => {
  console.error(String(error));
  process.exitCode = 1;
});
client.on('ready', () => client.exec(command, (error, stream) => {
  if (error) throw error;
  stream.pipe(process.stdout);
  stream.on('close', () => client.end());
}));
const sock = Duplex.from({ readable: proxy.stdout, writable: proxy.stdin });
client.connect({ sock, username, agent });
