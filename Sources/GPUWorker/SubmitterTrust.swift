import JobModel
import ServiceSupport
import TaskSigning
import WorkerCore

/// Whose tasks this worker runs, when it was told.
struct SubmitterTrust: Sendable {
    private let submitters: TrustedSubmitters

    /// - Parameter path: TRUSTED_SUBMITTERS.
    init(path: String) throws(FatalError) {
        let text: String
        do throws(FileContents.Failure) {
            text = String(decoding: try FileContents.read(path, limit: 1 << 20), as: UTF8.self)
        } catch {
            throw FatalError(.configuration, "TRUSTED_SUBMITTERS cannot be read: \(error)")
        }
        do throws(TrustedSubmitters.Problem) {
            submitters = try TrustedSubmitters(text)
        } catch {
            throw FatalError(.configuration, "TRUSTED_SUBMITTERS: \(path) line \(error.line): \(error.reason)")
        }
    }

    /// Why the task of a record is not run; nil when somebody who is trusted has signed it, and for this very job.
    func objection(to record: JobRecord, _ task: JobTask) -> TaskObjection? {
        do throws(TaskSignature.Flaw) {
            _ = try TaskSignature.signer(of: record.submission, trusted: submitters.keys)
        } catch {
            return TaskObjection(code: .forbidden, reason: "this worker runs signed tasks only: \(error)")
        }
        // Without its id inside, a signed task could be submitted again under any other.
        guard task.id == record.id else {
            return TaskObjection(
                code: .forbidden,
                reason:
                    "this worker runs signed tasks only, and they name their task_id: \(record.id) is not in what was "
                    + "signed"
            )
        }
        return nil
    }
}
