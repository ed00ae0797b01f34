// Server-sent events of a fetch: EventSource can only GET.

/**
 * The data of each event in a response's body, as it arrives.
 *
 * Only for streams of this gateway, which ends lines with LF and puts one blank after
 * `data:`. A general decoder must also take CR and CRLF.
 */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  // The beginning of an event whose end has not arrived yet.
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      // A comment such as `: keep-alive` has no data, and is no event.
      const data = block.split("\n").filter((line) => line.startsWith("data: "));
      if (data.length) yield data.map((line) => line.slice(6)).join("\n");
    }
  }
}
