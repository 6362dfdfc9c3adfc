import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport

struct LogsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs",
        abstract: "Prints the output of a job, also while it runs.",
        discussion: """
            Examples:
              maestroctl logs 01jd2v8k5m
              maestroctl logs --follow --stderr 01jd2v8k5m
            """
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The job.", valueName: "ID"))
    var id: JobID
    @Flag(name: [.long, .customShort("f")], help: "Go on until the job has ended.")
    var follow = false
    @Flag(help: "Only what the job wrote to standard error, on standard output.")
    var stderr = false
    @Flag(help: "Print the pieces as JSON, one a line.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        try await client.requirePool()
        var printer = OutputPrinter(streams: stderr ? [.standardError] : LogChunk.Stream.allCases)
        var pieces = 0
        let show: (LogChunk) -> Void = { chunk in
            pieces += 1
            if json {
                Console.write(chunk.encoded() + [UInt8(ascii: "\n")])
            } else {
                printer.print(chunk)
            }
        }
        if follow {
            try await followToEnd(client, show)
        } else {
            let stored = try await client.record(id)
            var seen: Set<Piece> = []
            try await Replay.run(
                client,
                stream: client.names.logsStream,
                subject: client.names.log(id),
                policy: .all,
                what: "the output of \(id)"
            ) { message in
                guard let chunk = LogChunk(readable: message.payload) else { return }
                if seen.insert(Piece(chunk)).inserted { show(chunk) }
            }
            if pieces == 0 { Console.say("maestroctl: \(Self.nothing(stored.record))") }
        }
        await client.close()
    }

    /// What makes a piece the same one when it was sent twice.
    private struct Piece: Hashable {
        let attempt: AttemptID
        let stream: LogChunk.Stream
        let offset: UInt64
        let isLast: Bool

        init(_ chunk: LogChunk) {
            (attempt, stream, offset, isLast) = (chunk.attempt, chunk.stream, chunk.offset, chunk.isLast)
        }
    }

    private func followToEnd(_ client: PoolClient, _ show: (LogChunk) -> Void) async throws {
        var follow = JobFollow(client, [id], showsOutput: true)
        var isUnknown = false
        let end = try await follow.run { update in
            switch update {
            case .output(let chunk): show(chunk)
            case .record: break
            case .unknown: isUnknown = true
            case .trouble(let text): Console.say("maestroctl: \(text)")
            }
        }
        if isUnknown { throw PoolClient.noSuchJob(id) }
        if case .interrupted = end { throw ArgumentParser.ExitCode(Interrupts.exitStatus) }
    }

    private static func nothing(_ record: JobRecord) -> String {
        record.tries == 0
            ? "\(record.id) has not run yet: it is \(JobText.story(of: record))"
            : "no output of \(record.id) is kept (it printed none, or it is older than what is kept)"
    }
}

extension LogChunk {
    /// Nil for what is not a piece of output: anybody can publish to the subject.
    init?(readable bytes: [UInt8]) {
        do {
            try self.init(parsing: bytes)
        } catch {
            return nil
        }
    }
}
