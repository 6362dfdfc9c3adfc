import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct WaitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wait",
        abstract: "Waits until jobs have ended.",
        usage: "maestroctl wait [options] [ID ...]",
        discussion: """
            Ends with 0 when all of them are done, with 1 when any failed, was cancelled or rejected.

            Examples:
              maestroctl wait sweep-1 sweep-2 --deadline 1h
              maestroctl submit --from-file jobs.jsonl > ids
              maestroctl wait --from-file ids --json

            With --json the record of each job is printed, one a line, when the job has ended.
            """
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("Jobs to wait for.", valueName: "ID"))
    var ids: [JobID] = []
    @Option(
        help: ArgumentHelp(
            "Take the ids from a file (- for standard input): an id, or a JSON object with task_id, a line.",
            valueName: "file"
        )
    )
    var fromFile: String?
    @Option(help: ArgumentHelp("How long to wait at most (90, 10m, 1.5h).", valueName: "time"))
    var deadline: TimeSpan?
    @Flag(help: "Print each record as JSON.")
    var json = false
    @OptionGroup(title: "Journal") var journal: JournalOptions

    func validate() throws {
        if ids.isEmpty, fromFile == nil { throw ValidationError("which jobs? Give their ids, or --from-file") }
    }

    func run() async throws {
        let jobs = try ids + (fromFile.map { try Self.identifiers(in: LineReader($0)) } ?? [])
        guard !jobs.isEmpty else { return }
        let client = try await pool.connect()
        try await client.requirePool()
        var follow = JobFollow(client, jobs)
        var progress = Progress(total: Set(jobs).count)
        var notDone = 0
        var unknown: [JobID] = []
        var ended: [JobID] = []
        let paint = Paint(.output)
        let end = try await follow.run(deadline: deadline?.duration) { update in
            switch update {
            case .record(let stored) where stored.record.state.isTerminal:
                progress.clear()
                let record = stored.record
                ended.append(record.id)
                if record.state != .done { notDone += 1 }
                if json {
                    Console.write(record.encoded() + [UInt8(ascii: "\n")])
                } else {
                    Console.print(paint("\(record.id) \(JobText.story(of: record))", Paint.colour(of: record.state)))
                }
                progress.add(record.state)
            case .record, .output: break
            case .unknown(let job): unknown.append(job)
            case .trouble(let text):
                progress.clear()
                Console.say("maestroctl: \(text)")
                progress.show()
            }
        }
        progress.clear()
        noteEnded(ended, client)
        await client.close()
        try Self.conclude(end, notDone: notDone, unknown: unknown)
    }

    /// What was submitted from here and has ended needs no more remembering.
    private func noteEnded(_ jobs: [JobID], _ client: PoolClient) {
        guard let journal = journal.journal(of: client) else { return }
        do {
            let known = Set(try journal.read().entries.map(\.submission.id))
            try journal.noteEnded(known.intersection(jobs))
        } catch {
            Console.say("maestroctl: \(error.message)")
        }
    }

    private static func conclude(_ end: FollowEnd, notDone: Int, unknown: [JobID]) throws {
        switch end {
        case .interrupted(let jobs):
            Console.say(
                "\nWhat was not ended goes on (\(Printable.count(jobs.count, "job"))); wait for them again with the same command"
            )
            throw ArgumentParser.ExitCode(Interrupts.exitStatus)
        case .deadline(let jobs):
            let first = jobs.first.map { ": \($0)\(jobs.count > 1 ? " …" : "")" } ?? ""
            throw FatalError(
                .deadline,
                "\(Printable.count(jobs.count, "job")) did not end before the deadline\(first); what runs goes on"
            )
        case .complete:
            if let first = unknown.first {
                throw FatalError(
                    .notFound,
                    "there is no job \(first)" + (unknown.count > 1 ? " (and \(unknown.count - 1) more of these)" : "")
                )
            }
            if notDone > 0 { throw quietExit(.failure) }
        }
    }

    /// The ids in a file: one, or one JSON object with `task_id`, a line.
    static func identifiers(in lines: LineReader) throws(FatalError) -> [JobID] {
        var lines = lines
        var jobs: [JobID] = []
        while let line = lines.next() {
            if line.isBlank { continue }
            let place = "\(lines.name) line \(lines.line)"
            var text = String(decoding: line, as: UTF8.self)
            if line.first == UInt8(ascii: "{") {
                do {
                    guard let id = try JSON(parsing: line)["task_id"]?.stringValue else {
                        throw FatalError(.usage, "\(place): the object has no task_id")
                    }
                    text = id
                } catch let error as FatalError {
                    throw error
                } catch {
                    throw FatalError(.usage, "\(place): \(error)")
                }
            }
            while let last = text.unicodeScalars.last, last.properties.isWhitespace { text.unicodeScalars.removeLast() }
            while let first = text.unicodeScalars.first, first.properties.isWhitespace {
                text.unicodeScalars.removeFirst()
            }
            guard let job = JobID(text) else {
                throw FatalError(
                    .usage,
                    "\(place): \"\(Printable.line(Printable.shortened(text, to: 60)))\" is not a job's id"
                )
            }
            jobs.append(job)
        }
        return jobs
    }
}
