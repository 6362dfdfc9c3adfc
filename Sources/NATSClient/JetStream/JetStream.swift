import WireJSON

/// The persistence layer of the bus: publishing with an answer, streams, consumers and reading back.
///
/// Everything goes through the JSON API (`$JS.API.*`), so that a request says exactly what is asked and the answer
/// shows exactly what the server made of it.
package struct JetStream: Sendable {
    package let connection: NATSConnection
    /// How long one request may wait for its answer.
    package var deadline: Duration
    /// Where the API lives: `$JS.API`, or `$JS.<domain>.API` for a leaf node's domain.
    let prefix: String

    package init(_ connection: NATSConnection, deadline: Duration = .seconds(5), domain: String? = nil) {
        self.connection = connection
        self.deadline = deadline
        prefix = domain.map { "$JS.\($0).API" } ?? "$JS.API"
    }

    /// Sends one request to the API and returns its answer.
    ///
    /// - Parameter verb: the subject below the prefix, such as `STREAM.INFO.ORG_WQ`.
    package func request(_ verb: String, _ body: JSON? = nil) async throws(JetStreamError) -> JSON {
        let subject = prefix + "." + verb
        let answer: NATSMessage
        do {
            answer = try await connection.ask(body?.encoded() ?? [], to: subject, deadline: deadline)
        } catch {
            throw .unknown(error)
        }
        let json: JSON
        do {
            json = try JSON(parsing: answer.payload)
        } catch {
            throw .unknown(NATSError(.protocol, "request", subject: subject, cause: "the answer is \(error)"))
        }
        if let error = JetStreamAPIError(json["error"]) { throw .refused(error) }
        return json
    }

    /// The account's use and limits (`$JS.API.INFO`). Throws `unknown` with `noResponders` if JetStream is off, and
    /// refused 10039 if it is off for the account.
    package func accountInfo() async throws(JetStreamError) -> JSON { try await request("INFO") }

    func protocolError(_ operation: String, _ subject: String) -> JetStreamError {
        .unknown(NATSError(.protocol, operation, subject: subject, cause: "the answer lacks a field"))
    }

    func checkToken(_ name: String, _ operation: String) throws(JetStreamError) {
        do {
            try Subject.checkToken(name, operation)
        } catch {
            throw .unknown(error)
        }
    }
}
