import ArgumentParser
import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

struct WatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch",
        abstract: "Shows what happens, as it happens: in the pool, or to one job.",
        discussion: """
            With a job: its states and its output until it has ended, then its result; also for a job that ended long \
            ago. Without one: the events of the whole pool, until Ctrl-C.

            Examples:
              maestroctl watch
              maestroctl watch 01jd2v8k5m
              maestroctl watch --states-only 01jd2v8k5m
            """
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The job; without one, the whole pool.", valueName: "ID"))
    var id: JobID?
    @Flag(help: "Leave the job's output out.")
    var statesOnly = false
    @Flag(help: "Leave heartbeats and readings in.")
    var all = false
    @Flag(help: "Print JSON, one line for each event or revision.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        try await client.requirePool()
        guard let id else { return try await watchPool(client) }
        let live = LiveFollow(client: client, job: id, showsOutput: !statesOnly && !json, isJSON: json)
        let stored = try await live.run()
        if !json, !statesOnly { await tellResult(of: stored, client) }
        await client.close()
        if stored.record.state != .done { throw quietExit(.failure) }
    }

    /// The output was shown already, unless it is no longer kept.
    private func tellResult(of stored: StoredRecord, _ client: PoolClient) async {
        let record = stored.record
        do {
            let result = try await JobResult.read(of: stored, client)
            let code = result["data"]?["returncode"]?.intValue.map { ", returned \($0)" } ?? ""
            Console.say(
                "\(record.id): result \(result["ok"]?.boolValue == true ? "ok" : "not ok")\(code), attempts \(record.tries)"
            )
        } catch {
            Console.say("maestroctl: \(PoolClient.failure(error, "the result").message)")
        }
    }

    // MARK: the whole pool

    private enum Event: Sendable {
        case message(StoredMessage)
        case trouble(String)
        case interrupted
    }

    private func watchPool(_ client: PoolClient) async throws {
        let mailbox = Mailbox<Event>()
        var options = OrderedConsumer.Options()
        options.deliverPolicy = .new
        let consumer = try OrderedConsumer(
            client.jetStream,
            stream: client.names.eventsStream,
            options: options
        ) { event in
            switch event {
            case .message(let message, _): mailbox.send(.message(message))
            case .failed(let error): mailbox.send(.trouble(PoolClient.failure(error, "the events").message))
            case .caughtUp, .recreated: break
            }
        }
        let interrupts = Task { for await _ in Interrupts.stream() { mailbox.sendOutcome(.interrupted) } }
        defer {
            interrupts.cancel()
            mailbox.close()
            consumer.close()
        }
        if !json {
            Console.say(
                "watching \(client.connection.serverInfo.map { Secrets.masked($0.url) } ?? "the pool"); Ctrl-C ends it"
            )
        }
        let paint = Paint(.output)
        var lastTrouble = ""
        while true {
            for event in await mailbox.receive() {
                switch event {
                case .message(let message):
                    guard let line = EventText.line(message, client.names, all: all, isJSON: json, paint) else {
                        continue
                    }
                    Console.print(line)
                case .trouble(let text):
                    if text != lastTrouble { Console.say("maestroctl: \(text)") }
                    lastTrouble = text
                case .interrupted:
                    // First, so that a sender that waits for room goes on: closing waits for it.
                    mailbox.close()
                    return await client.close()
                }
            }
        }
    }
}

/// An older name for `watch --states-only`.
struct TailStateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tail-state",
        abstract: "Shows the states of one job as they come; the same as watch --states-only.",
        discussion: "Example:\n  maestroctl tail-state 01jd2v8k5m"
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The job.", valueName: "ID"))
    var id: JobID
    @Flag(help: "Print JSON, one line for each revision.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        try await client.requirePool()
        let stored = try await LiveFollow(client: client, job: id, showsOutput: false, isJSON: json).run()
        await client.close()
        if stored.record.state != .done { throw quietExit(.failure) }
    }
}

/// Events of the pool in words.
enum EventText {
    /// One line for an event; nil for one that is left out.
    /// - Parameter all: heartbeats and readings too.
    static func line(_ message: StoredMessage, _ names: PoolNames, all: Bool, isJSON: Bool, _ paint: Paint) -> String? {
        let isRoutine = [names.heartbeat, names.metrics, names.maestroEvent("heartbeat")].contains(message.subject)
        guard all || !isRoutine else { return nil }
        let json: JSON
        do {
            json = try JSON(parsing: message.payload)
        } catch {
            json = .string(String(decoding: message.payload, as: UTF8.self))
        }
        if isJSON {
            let event: JSON = ["subject": .string(message.subject), "sequence": .int(message.sequence), "data": json]
            return String(decoding: event.encoded(), as: UTF8.self)
        }
        let clock = WallClock.text(seconds: Double(message.timestamp) / 1e9).dropFirst(11).prefix(8)
        let (text, colour) = words(message.subject, json, names)
        return paint(String(clock), .grey) + " " + paint(Printable.line(text), colour)
    }

    private static func words(_ subject: String, _ json: JSON, _ names: PoolNames) -> (String, Paint.Colour?) {
        let job = json["task_id"]?.stringValue ?? "(no job)"
        let card = json["gpu_id"].flatMap { GPUID($0) }.map { " on card \($0)" } ?? ""
        if subject == names.done {
            let duration = json["duration"]?.doubleValue.map { " in \(Printable.duration($0))" } ?? ""
            return ("\(job) attempt done\(card)\(duration)", .green)
        }
        if subject == names.error {
            let again = json["will_retry"]?.boolValue == true ? ", to be tried again" : ""
            return (
                "\(job) \(json["code"]?.stringValue ?? "error")\(card)\(again): \(json["error"]?.stringValue ?? "")",
                .yellow
            )
        }
        if subject.hasPrefix(names.resultPrefix + ".") {
            let state = json["state"]?.stringValue.flatMap(JobState.init(rawValue:))
            return ("\(job) ended: \(state?.rawValue ?? "?")", state.flatMap(Paint.colour(of:)))
        }
        let event = json["event"]?.stringValue.map { " \($0)" } ?? ""
        let message = ["message", "reason"].compactMap { json[$0]?.stringValue }.first.map { ": \($0)" } ?? ""
        let about = json["task_id"]?.stringValue.map { " \($0)" } ?? ""
        let name =
            subject.hasPrefix(names.subjectPrefix) ? String(subject.dropFirst(names.subjectPrefix.count)) : subject
        return ("\(name)\(event)\(about)\(card)\(message)", nil)
    }
}
