import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import TaskSigning
import WireJSON

struct RetryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry",
        abstract: "Runs jobs that have ended once more, as new jobs.",
        usage: "maestroctl retry [options] ID ...",
        discussion: """
            The new job names the old one (retry_of); its id is printed.

            Example:
              maestroctl retry 01jd2v8k5m
            """
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The jobs.", valueName: "ID"))
    var ids: [JobID]
    @Flag(help: "Print JSON, one line for each job.")
    var json = false
    @OptionGroup(title: "Signature") var signing: SigningOptions
    @OptionGroup(title: "Journal") var journal: JournalOptions

    func run() async throws {
        let key = try signing.key(pool)
        let client = try await pool.connect()
        let keeper = try await journal.keeper(for: client)
        var source = IdentifierSource()
        for id in ids {
            let record = try await client.record(id).record
            let submission = try Self.again(record, now: MonotonicClock().now(), signedWith: key, from: &source)
            try await SubmitCommand.send(submission, client, keeper, isJSON: json)
        }
        await client.close()
    }

    /// The submission that runs a job again.
    static func again(
        _ record: JobRecord,
        now: Timestamp,
        signedWith key: SigningKey? = nil,
        from source: inout IdentifierSource
    ) throws(FatalError) -> Submission {
        guard record.state.isTerminal else {
            throw FatalError(
                .failure,
                "\(record.id) has not ended: it is \(JobText.story(of: record)); cancel it first, or wait for it"
            )
        }
        guard !record.submission.isEmpty else {
            throw FatalError(.failure, "\(record.id) was cancelled before its task arrived: there is nothing to run")
        }
        do {
            guard case .object(var task) = try JSON(parsing: record.submission) else {
                throw FatalError(.badTask, "\(record.id) holds no task")
            }
            task["task_id"] = nil
            task["submitted_at"] = nil
            task["submitter"] = nil
            // It was for the first job alone.
            task["signature"] = nil
            task["retry_of"] = .string(record.id.text)
            return try Submission(
                task: JSON.object(task).encoded(),
                now: now,
                submitter: Who.submits,
                from: &source
            )
            .signed(with: key)
        } catch let error as FatalError {
            throw error
        } catch {
            throw FatalError(.badTask, "\(record.id) cannot be run again: \(error)")
        }
    }
}
