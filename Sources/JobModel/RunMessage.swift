import WireJSON

/// A dispatched attempt on `gpu.task.run.<gpu>`: the whole record as it was written, and where it was written.
package struct RunMessage: Sendable, Equatable {
    /// The record in state scheduled, with the card, the attempt and the owner it was given to.
    package let record: JobRecord
    /// The sequence of that revision: what a claim is compared with.
    package let sequence: UInt64

    package init(record: JobRecord, sequence: UInt64) {
        self.record = record
        self.sequence = sequence
    }

    /// The token of the attempt; the parser and the leader make sure that there is one.
    package var attempt: AttemptID? { record.attempt }

    package func encoded() -> [UInt8] {
        let recordBytes = record.encoded()
        var writer = JSONWriter(capacity: recordBytes.count + 128)
        writer.beginObject()
        writer.field("v", FormatVersion.current)
        writer.field("attempt_id", record.attempt?.text ?? "")
        writer.field("sequence", sequence)
        writer.field("record", raw: recordBytes)
        writer.endObject()
        return writer.bytes
    }

    /// Reads a run message.
    /// - Throws: when the message is not one that a maestro dispatched; the reason names the subject to use instead.
    package init(parsing bytes: [UInt8], enqueueSubject: String) throws(MalformedMessage) {
        func refuse(_ problem: String) -> MalformedMessage {
            MalformedMessage("run message", "\(problem); submit jobs on \(enqueueSubject), a maestro dispatches them")
        }
        let fields: JSONFields
        let sequence: UInt64?
        let attempt: String?
        let version: JSON?
        do {
            fields = try JSONFields(parsing: bytes)
            version = try fields.value("v")
            sequence = try fields.value("sequence")?.unsignedValue
            attempt = try fields.value("attempt_id")?.stringValue
        } catch {
            throw refuse(error.description)
        }
        if let problem = FormatVersion.problem(in: version) { throw refuse(problem) }
        guard let raw = fields.raw("record") else { throw refuse("it holds no record") }
        guard let sequence, sequence > 0 else { throw refuse("it holds no sequence") }
        let record: JobRecord
        do {
            record = try JobRecord(parsing: Array(raw))
        } catch {
            throw refuse(error.description)
        }
        guard record.state == .scheduled, let token = record.attempt, token.text == attempt else {
            throw refuse("it holds no attempt_id of a scheduled record")
        }
        self.init(record: record, sequence: sequence)
    }
}
