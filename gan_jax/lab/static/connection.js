// The websocket of the page: it reconnects, and unpacks binary frames.

const TYPES = {f4: Float32Array, u1: Uint8Array};

// Unpacks a frame; gan_jax/lab/frames.py describes the format.
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  const {arrays: listed, ...header} = JSON.parse(text);
  const arrays = {};
  let start = 4 + length;
  for (const [name, type, shape] of listed) {
    const count = shape.reduce((a, b) => a * b, 1);
    const data = new TYPES[type](buffer, start, count);
    arrays[name] = {data, shape};
    start += data.byteLength + ((4 - (data.byteLength % 4)) % 4);
  }
  return {header, arrays};
}

// Each tab has games of its own, which survive a reload.
export function tabName() {
  let name = sessionStorage.getItem('tab');
  if (!name) {
    name = crypto.randomUUID();
    sessionStorage.setItem('tab', name);
  }
  return name;
}

export class Connection {
  // on: {message(object), frame({header, arrays}), state(text)}
  constructor(on) {
    this.on = on;
    this.delay = 250;
    this.open();
  }

  open() {
    const url = new URL(`socket?tab=${tabName()}`, location.href);
    url.protocol = 'ws:';
    url.hash = '';
    this.socket = new WebSocket(url);
    this.socket.binaryType = 'arraybuffer';
    this.socket.onopen = () => {
      this.delay = 250;
      this.on.state('open');
    };
    this.socket.onmessage = ({data}) => {
      if (typeof data === 'string') this.on.message(JSON.parse(data));
      else this.on.frame(unpack(data));
    };
    this.socket.onclose = ({code}) => {
      if (code === 4001) {
        this.on.state('taken');
        return;
      }
      this.on.state('closed');
      setTimeout(() => this.open(), this.delay);
      this.delay = Math.min(2 * this.delay, 4000);
    };
  }

  send(command) {
    if (this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(command));
    }
  }
}
