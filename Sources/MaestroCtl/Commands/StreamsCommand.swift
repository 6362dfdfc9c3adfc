import ArgumentParser
import JobModel
import NATSClient
import ServiceSupport
import WireJSON

struct StreamsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "streams",
        abstract: "Lists the pool's streams, or moves streams of an older layout over.",
        discussion: """
            Examples:
              maestroctl streams
              maestroctl streams migrate --dry-run
            """,
        subcommands: [StreamsListCommand.self, StreamsMigrateCommand.self],
        defaultSubcommand: StreamsListCommand.self
    )

    static func streams(_ names: PoolNames) -> [(name: String, purpose: String)] {
        [
            (names.workQueueStream, "submissions not yet admitted"), (names.runStream, "attempts not yet finished"),
            (names.jobsStream, "the record of each job"), (names.controlStream, "leases"),
            (names.eventsStream, "what happened"), (names.logsStream, "output of jobs"),
        ]
    }

    /// Nil when there is no such stream.
    static func info(_ name: String, _ client: PoolClient) async throws -> StreamInfo? {
        do {
            return try await client.jetStream.streamInfo(name)
        } catch .refused(let error) where error.isStreamNotFound {
            return nil
        } catch {
            throw PoolClient.failure(error, "stream \(name)")
        }
    }

    /// How full the stream is, 0 to 1, by the limit that is nearest; nil without limits.
    static func share(_ info: StreamInfo) -> Double? {
        [("max_bytes", info.bytes), ("max_msgs", info.messages)].compactMap { key, used in
            info.config[key]?.doubleValue.flatMap { $0 > 0 ? Double(used) / $0 : nil }
        }.max()
    }
}

struct StreamsListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Lists the pool's streams and what they hold.",
        discussion: "Ends with 69 when one is missing.\n\nExample:\n  maestroctl streams"
    )

    @OptionGroup var pool: PoolOptions
    @Flag(help: "Print JSON, one line for each stream.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        let names = client.names
        var table = Table(titles: "STREAM", ">MESSAGES", ">BYTES", ">FULL", ">READERS", "HOLDS")
        var isAnyMissing = false
        for (name, purpose) in StreamsCommand.streams(names) {
            let info = try await StreamsCommand.info(name, client)
            if info == nil { isAnyMissing = true }
            if json {
                Console.print(Self.json(name, info))
            } else if let info {
                let share = StreamsCommand.share(info)
                table.add([
                    Table.Cell(name), "\(info.messages)", Table.Cell(Printable.bytes(info.bytes)),
                    Table.Cell(
                        share.map { "\(Printable.fixed($0 * 100, 0))%" } ?? "-",
                        (share ?? 0) > 0.8 ? .red : nil
                    ),
                    "\(info.consumerCount)", Table.Cell(purpose),
                ])
            } else {
                table.add([
                    Table.Cell(name), "-", "-", "-", "-", Table.Cell("missing: no maestro has made it yet", .red),
                ])
            }
        }
        await client.close()
        if !json { for line in table.lines(width: Console.width, paint: Paint(.output)) { Console.print(line) } }
        if isAnyMissing { throw quietExit(.unavailable) }
    }

    private static func json(_ name: String, _ info: StreamInfo?) -> JSON {
        guard let info else { return ["stream": .string(name), "exists": false] }
        return [
            "stream": .string(name), "exists": true, "messages": .int(info.messages), "bytes": .int(info.bytes),
            "first_sequence": .int(info.firstSequence), "last_sequence": .int(info.lastSequence),
            "consumers": .int(info.consumerCount),
        ]
    }
}
