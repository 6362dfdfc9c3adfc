import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport

/// Follows one job before the eyes of a person: its states on standard error, its output where it belongs.
struct LiveFollow {
    let client: PoolClient
    let job: JobID
    var showsOutput = true
    var showsStates = true
    var printer = OutputPrinter()
    /// Each record as JSON on standard output instead of words.
    var isJSON = false

    /// - Returns: the last record of the job, which is terminal.
    /// - Throws: a ``FatalError`` when there is no such job or the deadline passed; the exit status of an interrupt.
    func run(deadline: Duration? = nil) async throws -> StoredRecord {
        var follow = JobFollow(client, [job], showsOutput: showsOutput)
        var printer = printer
        var last: StoredRecord?
        var isUnknown = false
        let paint = Paint(.error)
        let end = try await follow.run(deadline: deadline) { update in
            switch update {
            case .record(let stored):
                last = stored
                if isJSON {
                    Console.write(stored.record.encoded() + [UInt8(ascii: "\n")])
                } else if showsStates {
                    Console.say(
                        paint("\(job) \(JobText.story(of: stored.record))", Paint.colour(of: stored.record.state))
                    )
                }
            case .output(let chunk): if !isJSON { printer.print(chunk) }
            case .unknown: isUnknown = true
            case .trouble(let text): Console.say("maestroctl: \(text)")
            }
        }
        switch end {
        case .interrupted:
            Console.say("\n\(job) runs on. Watch it again: maestroctl watch \(job)    End it: maestroctl cancel \(job)")
            throw ArgumentParser.ExitCode(Interrupts.exitStatus)
        case .deadline:
            throw FatalError(.deadline, "\(job) has not ended yet; it runs on")
        case .complete:
            guard !isUnknown, let last else { throw PoolClient.noSuchJob(job) }
            return last
        }
    }
}
