import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import WireJSON

struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel",
        abstract: "Cancels jobs: they do not run, or are killed.",
        discussion: """
            A job that has ended stays as it is; then the command ends with 1. An id that nobody knows yet is cancelled \
            too, so that a submission still on its way does not run.

            Example:
              maestroctl cancel 01jd2v8k5m --reason 'wrong data'
            """
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The jobs.", valueName: "ID"))
    var ids: [JobID]
    @Option(help: ArgumentHelp("Why, for whoever looks at the job later.", valueName: "text"))
    var reason = ""
    @Flag(help: "Print JSON, one line for each job.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        var tooLate = 0
        for id in ids {
            let state: JobState
            do {
                state = try await client.api.cancel(id, reason: reason)
            } catch {
                throw PoolClient.failure(error, "cancel \(id)")
            }
            if state != .cancelled, state.isTerminal { tooLate += 1 }
            if json {
                Console.print(["task_id": .string(id.text), "state": .string(state.rawValue)])
            } else {
                Console.print("\(id) \(try await isKnown(id, client) ? Self.words(state) : Self.unknown)")
            }
        }
        await client.close()
        if tooLate > 0 { throw quietExit(.failure) }
    }

    /// Whether somebody had submitted the job before it was cancelled.
    private func isKnown(_ id: JobID, _ client: PoolClient) async throws -> Bool {
        do {
            return try await client.records.read(id)?.record.submission.isEmpty != true
        } catch {
            throw PoolClient.failure(error, "the record of \(id)")
        }
    }

    private static let unknown = "cancelled; nobody has submitted it so far: is the id right?"

    private static func words(_ state: JobState) -> String {
        switch state {
        case .cancelled: "cancelled"
        case .done, .failed, .rejected: "had ended before: \(state.rawValue)"
        default: "is being cancelled: its worker kills it"
        }
    }
}
