import ArgumentParser
import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

struct ResultCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "result",
        abstract: "Prints the result of a job that has ended.",
        discussion: """
            The job's standard output and error go to this command's own. Ends with 0 if the job is done, else with 1.

            Examples:
              maestroctl result 01jd2v8k5m > figures.json
              maestroctl result 01jd2v8k5m --json
            """
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The job.", valueName: "ID"))
    var id: JobID
    @Flag(help: "Wait for the job's end first.")
    var wait = false
    @Flag(help: "Print the result event as JSON.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        var stored = try await client.record(id)
        if !stored.record.state.isTerminal {
            guard wait else {
                throw FatalError(
                    .failure,
                    "\(id) has not ended: it is \(JobText.story(of: stored.record)). Wait for it: maestroctl result --wait \(id)"
                )
            }
            stored = try await LiveFollow(client: client, job: id, showsOutput: false).run()
        }
        let event = try await JobResult.read(of: stored, client)
        await client.close()
        try show(event)
    }

    private func show(_ event: JSON) throws {
        if json {
            Console.print(event)
        } else {
            let data = event["data"]
            Console.write(Array((data?["stdout"]?.stringValue ?? "").utf8))
            StandardStream.error.write(Array((data?["stderr"]?.stringValue ?? "").utf8))
            if event["ok"]?.boolValue != true { Console.say("maestroctl: \(id) \(Self.verdict(event))") }
            if data?["stdout_truncated"]?.boolValue == true || data?["stderr_truncated"]?.boolValue == true {
                Console.say("maestroctl: only the end of the output is here; all of it: maestroctl logs \(id)")
            }
            if data?["output_unavailable"]?.boolValue == true {
                Console.say("maestroctl: only the last 2 KB are known: the worker went away with the rest")
            }
        }
        if event["ok"]?.boolValue != true { throw quietExit(.failure) }
    }

    private static func verdict(_ event: JSON) -> String {
        let state = event["state"]?.stringValue ?? "failed"
        return Printable.line(state + (event["error"]?.stringValue.map { ": \($0)" } ?? ""))
    }
}

/// The result event of a job: published once, right after the record became terminal.
enum JobResult {
    private enum Event: Sendable {
        case result([UInt8])
        /// All that is there was read.
        case end
        case failed(JetStreamError)
        case deadline
    }

    /// How long after a job's end its result may still be on its way: a leader publishes in a dead worker's stead.
    private static let delay = 60.0

    /// Reads the event of a job that has ended, waiting for it if the end was just now.
    static func read(of stored: StoredRecord, _ client: PoolClient) async throws -> JSON {
        let id = stored.record.id
        let wasTold = try await wasTold(stored, client)
        let mailbox = Mailbox<Event>()
        var options = OrderedConsumer.Options()
        options.filterSubject = client.names.result(id)
        let consumer = try OrderedConsumer(
            client.jetStream,
            stream: client.names.eventsStream,
            options: options
        ) { event in
            switch event {
            case .message(let message, _): mailbox.sendOutcome(.result(message.payload))
            case .failed(let error): mailbox.sendOutcome(.failed(error))
            case .caughtUp: mailbox.sendOutcome(.end)
            case .recreated: break
            }
        }
        // Only how long to wait depends on the clocks, not what is true.
        let age = WallClock.now() - Double(stored.timestamp) / 1e9
        let timer = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(.deadline) }
        timer.arm(after: .inSeconds(max(2, min(delay, delay - age))))
        defer {
            consumer.close()
            timer.cancel()
        }
        while true {
            for event in await mailbox.receive() {
                switch event {
                case .result(let bytes):
                    do {
                        return try JSON(parsing: bytes)
                    } catch {
                        throw FatalError(.unavailable, "the result of \(id) is \(error)")
                    }
                case .failed(let error): throw PoolClient.failure(error, "the result of \(id)")
                case .end: if wasTold { throw expired(stored.record) }
                case .deadline: throw expired(stored.record)
                }
            }
        }
    }

    private static func expired(_ record: JobRecord) -> FatalError {
        FatalError(
            .notFound,
            "\(record.id) is \(record.state.rawValue), but its result is no longer kept; "
                + "its last lines: maestroctl show \(record.id)"
        )
    }

    /// Whether the leaders have made sure of the event, so that it is not to be waited for where it is not found.
    private static func wasTold(_ stored: StoredRecord, _ client: PoolClient) async throws -> Bool {
        do {
            let place = try await client.jetStream.lastMessage(
                stream: client.names.controlStream,
                subject: client.names.resultsPlace
            )
            guard let place else { return false }
            return try ResultsPlace(parsing: place.payload).through >= stored.sequence
        } catch let error as MalformedMessage {
            Console.say("maestroctl: what stands at \(client.names.resultsPlace) is \(error)")
            return false
        } catch {
            throw PoolClient.failure(error, "the place of the results")
        }
    }
}
