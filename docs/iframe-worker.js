// Browsers start no worker from a file on disk, and the search is a worker. On a page that is opened from disk, a hidden
// frame runs the worker's script instead. Its name tells mkdocs-material's offline plugin not to load another one from
// the network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.started = new Promise((started) => {
        const frame = document.createElement("iframe");
        frame.hidden = true;
        frame.title = "search";
        frame.onload = () => {
          frame.onload = null;
          const inner = frame.contentWindow;
          inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          const script = inner.document.createElement("script");
          script.src = url;
          script.onload = () => started(inner);
          inner.document.body.append(script);
        };
        document.body.append(frame);
      });
    }

    postMessage(data) {
      this.started.then((inner) => inner.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
