import JobModel
import ServiceSupport

/// Prints the output of a followed job as it comes: what it wrote to standard output and error goes to ours.
struct OutputPrinter {
    /// The streams to print; a single one goes to standard output.
    let streams: [LogChunk.Stream]
    private var attempt: AttemptID?

    init(streams: [LogChunk.Stream] = LogChunk.Stream.allCases) { self.streams = streams }

    mutating func print(_ chunk: LogChunk) {
        if let attempt, attempt != chunk.attempt { Console.say("maestroctl: another attempt begins here") }
        attempt = chunk.attempt
        guard streams.contains(chunk.stream) else { return }
        if chunk.skippedBytes > 0 {
            Console.say(
                "maestroctl: \(Printable.bytes(chunk.skippedBytes)) of \(chunk.stream.rawValue) are left out here"
            )
        }
        if streams.count == 1 || chunk.stream == .standardOutput {
            Console.write(Array(chunk.text.utf8))
        } else {
            StandardStream.error.write(Array(chunk.text.utf8))
        }
    }
}
