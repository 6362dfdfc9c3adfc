import ArgumentParser
import Glibc
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct SubmitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "submit",
        abstract: "Submits a job, or a file of them.",
        usage: """
            maestroctl submit [options] -- PROGRAM [ARGUMENT ...]
            maestroctl submit [options] --shell LINE
            maestroctl submit --from-file FILE|-
            """,
        discussion: """
            Prints the job's id. Once it is printed the job cannot be lost: it reaches exactly one end.

            Examples:
              maestroctl submit -- python3 train.py --epochs 3
              maestroctl submit --wait --gpu 2 --shell 'nvidia-smi | head'
              maestroctl submit --from-file jobs.jsonl --json

            A file holds one task a line, as JSON: {"task_id":"a","cmd":["sleep","5"]}. A task that names its id can \
            be submitted again and again and runs once; without an id each line is a new job.
            """
    )

    @OptionGroup var pool: PoolOptions
    @OptionGroup(title: "What to run") var what: TaskOptions

    @Option(
        help: ArgumentHelp(
            "Submit the tasks in a file (- for standard input), one JSON object a line.",
            valueName: "file"
        )
    )
    var fromFile: String?
    @Flag(help: "Wait for the job's end, show its output, and end with its exit code.")
    var wait = false
    @Flag(help: "The same as --wait.")
    var follow = false
    @Flag(help: "Print JSON.")
    var json = false
    @OptionGroup(title: "Signature") var signing: SigningOptions
    @OptionGroup(title: "Journal") var journal: JournalOptions

    /// Not `validate()`: that would be asked before an unknown option is told.
    private func check() throws {
        if fromFile != nil {
            guard what.isEmpty else { throw ValidationError("--from-file takes no other description of a job") }
            guard !wait, !follow else {
                throw ValidationError("to wait for many jobs, pipe their ids: … --json | maestroctl wait --from-file -")
            }
        } else {
            try what.validateCommand()
        }
    }

    func run() async throws {
        try check()
        let key = try signing.key(pool)
        if let fromFile {
            return try await FileSubmission(pool: pool, path: fromFile, isJSON: json, key: key, journal: journal).run()
        }
        var source = IdentifierSource()
        let submission: Submission
        do {
            submission = try Submission(
                task: what.task().encoded(),
                now: MonotonicClock().now(),
                submitter: Who.submits,
                from: &source
            )
            .signed(with: key)
        } catch {
            throw FatalError(.badTask, "the task is refused: \(error)")
        }
        let client = try await pool.connect()
        try await client.requirePool()
        let keeper = try await journal.keeper(for: client)
        guard wait || follow else {
            try await Self.send(submission, client, keeper, isJSON: json)
            return await client.close()
        }
        // From here on Ctrl-C is told what it leaves behind, also between the submission and the wait.
        let interrupts = Self.endOnInterrupt(submission.id)
        try await Self.send(submission, client, keeper, isJSON: json)
        interrupts.cancel()
        let live = LiveFollow(client: client, job: submission.id, isJSON: json)
        let end = try await live.run()
        keeper.noteEnded([submission.id])
        await client.close()
        guard end.record.submission == submission.bytes else {
            throw FatalError(.badTask, Self.conflict(submission.id))
        }
        try Self.leave(with: end.record)
    }

    /// Ends the program on Ctrl-C while a submission has no answer yet.
    private static func endOnInterrupt(_ id: JobID) -> Task<Void, Never> {
        let interrupts = Interrupts.stream()
        return Task {
            for await _ in interrupts {
                Console.say("\nWhether \(id) was taken is unknown: maestroctl show \(id)")
                Glibc.exit(Interrupts.exitStatus)
            }
        }
    }

    /// Writes one job down, submits it and prints its id.
    static func send(_ submission: Submission, _ client: PoolClient, _ keeper: JournalKeeper, isJSON: Bool) async throws
    {
        try keeper.keep([submission])
        let outcome = await Submitter(client.jetStream, names: client.names)
            .submit(submission, until: .now + .seconds(30))
        switch outcome {
        case .stored(let sequence, let isDuplicate):
            if isJSON {
                Console.print(line(submission.id, sequence: sequence, isDuplicate: isDuplicate))
            } else {
                Console.print(submission.id.text)
                if isDuplicate { Console.say("maestroctl: \(submission.id) was submitted before; it runs once") }
            }
        case .conflict:
            keeper.noteRefused([submission])
            throw FatalError(.badTask, conflict(submission.id))
        case .full(let reason):
            keeper.noteRefused([submission])
            throw FatalError(.deadline, "\(submission.id) was not taken: \(reason)")
        case .refused(let reason):
            keeper.noteRefused([submission])
            throw FatalError(.unavailable, "\(submission.id) was not taken: \(reason)")
        case .unknown(let error) where error.code == .noResponders:
            throw FatalError(
                .unavailable,
                "nothing on this server takes jobs: no maestro has made its streams yet (or JetStream is off)"
            )
        case .unknown(let error):
            throw FatalError(
                .deadline,
                "whether \(submission.id) was taken is unknown (\(error)); submit it again with --id \(submission.id)"
            )
        }
    }

    static func conflict(_ id: JobID) -> String {
        "the id \(id) belongs to a job with other content, which is untouched; give this one another id"
    }

    static func line(_ id: JobID, sequence: UInt64, isDuplicate: Bool) -> JSON {
        ["task_id": .string(id.text), "sequence": .int(sequence), "duplicate": .bool(isDuplicate)]
    }

    /// Ends with the job's own exit code where it has one.
    static func leave(with record: JobRecord) throws {
        guard record.state != .done else { return }
        let code = record.outcome?.returnCode ?? 0
        throw ArgumentParser.ExitCode((1...255).contains(code) ? Int32(code) : ServiceSupport.ExitCode.failure.rawValue)
    }
}
