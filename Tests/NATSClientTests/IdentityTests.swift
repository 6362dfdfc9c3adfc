import Glibc
import Testing

@testable import NATSClient

@Suite(.timeLimit(.minutes(2)))
struct IdentityTests {
    /// Whether a connection can be used, or why it cannot be made.
    private func use(_ connection: NATSConnection) async -> NATSError? {
        do throws(NATSError) {
            try connection.start()
            try await connection.waitUntilConnected(deadline: .seconds(3))
            try await connection.flush(deadline: .seconds(30))
            await connection.close()
            return nil
        } catch {
            await connection.close()
            return error
        }
    }

    /// The lengths of messages that this connection has sent to itself.
    private func echo(_ connection: NATSConnection, _ lengths: [Int]) async throws -> [Int] {
        let received = Collector<Int>()
        let subscription = try connection.subscribe("echo") { received.add($0.payload.count) }
        try connection.start()
        try await connection.waitUntilConnected(deadline: .seconds(30))
        for length in lengths { try connection.publish([UInt8](repeating: 7, count: length), to: "echo") }
        #expect(await received.wait(count: lengths.count))
        subscription.cancel()
        await connection.close()
        return received.values
    }

    private func file(_ name: String, _ text: String, _ server: TestServer) throws -> String {
        let path = server.directory + "/" + name
        try TestServer.write(text + "\n", to: path)
        return path
    }

    @Test func aCertificateFromATrustedAuthorityIsAsked() async throws {
        let server = try TestServer(running: false) { directory in
            """
            tls { cert_file: "\(directory)/server.pem", key_file: "\(directory)/server.key",
                  ca_file: "\(directory)/ca.pem", verify: true }
            """
        }
        let certificate = try file("server.pem", TestIdentity.certificate, server)
        let key = try file("server.key", TestIdentity.key, server)
        let authority = try file("ca.pem", TestIdentity.authority, server)
        let other = try file("other.pem", TestIdentity.otherAuthority, server)
        try server.start()
        var tls = NATSTLSOptions()
        tls.caFile = authority
        tls.certificateFile = certificate
        tls.keyFile = key
        #expect(await use(try server.makeConnection { $0.tls = tls }) == nil)
        let lengths = [1, 20_000, 900_000]
        #expect(try await echo(try server.makeConnection { $0.tls = tls }, lengths) == lengths)
        var unverified = tls
        unverified.caFile = nil
        unverified.verify = false
        #expect(await use(try server.makeConnection { $0.tls = unverified }) == nil)
        var mistrusting = tls
        mistrusting.caFile = other
        #expect(await use(try server.makeConnection { $0.tls = mistrusting })?.code == .timeout)
        var anonymous = tls
        anonymous.certificateFile = nil
        anonymous.keyFile = nil
        #expect(await use(try server.makeConnection { $0.tls = anonymous })?.code == .timeout)
        #expect(await use(try server.makeConnection())?.code == .timeout)
        var halfGiven = tls
        halfGiven.keyFile = nil
        #expect(throws: NATSError.self) { try server.makeConnection { $0.tls = halfGiven } }
    }

    @Test func nkeys() async throws {
        let server = try TestServer { _ in "authorization { users: [ { nkey: \(TestIdentity.nkey) } ] }" }
        let seed = try file("seed", TestIdentity.nkeySeed, server)
        let good = try server.makeConnection {
            $0.nkeySeedFile = seed
            $0.nkeyPublicKey = TestIdentity.nkey
        }
        #expect(await use(good) == nil)
        #expect(throws: NATSError.self) { try server.makeConnection { $0.nkeySeedFile = seed } }
    }

    @Test func credentialsFiles() async throws {
        let server = try TestServer(jetStream: false) { _ in
            """
            operator: "\(TestIdentity.operatorToken)"
            resolver: MEMORY
            resolver_preload: { \(TestIdentity.account): "\(TestIdentity.accountToken)" }
            """
        }
        let credentials = try file("user.creds", TestIdentity.credentials, server)
        #expect(await use(try server.makeConnection { $0.credentialsFile = credentials }) == nil)
    }

    /// The library gives a connection up after two refusals; ours goes on, because servers get repaired.
    @Test func refusedCredentialsAreReportedAndTriedAgain() async throws {
        let server = try TestServer { _ in "authorization { user: a, password: right }" }
        let connection = try server.makeConnection { $0.urls = ["nats://a:wrong@127.0.0.1:\(server.port)"] }
        let errors = Collector<NATSError>()
        _ = connection.addObserver { if case .asyncError(let error) = $0 { errors.add(error) } }
        let received = Collector<NATSMessage>()
        let subscription = try connection.subscribe("a") { received.add($0) }
        try connection.start()
        #expect(await errors.wait { $0.contains { $0.code == .authentication } })
        server.kill()
        try server.configure { _ in "authorization { user: a, password: wrong }" }
        try server.start()
        try await connection.waitUntilConnected(deadline: .seconds(60))
        try connection.publish([1], to: "a")
        #expect(await received.wait(count: 1))
        // The same for a connection that stood before.
        server.kill()
        try server.configure { _ in "authorization { user: a, password: right }" }
        let before = errors.values.count
        try server.start()
        #expect(await errors.wait { $0.dropFirst(before).contains { $0.code == .authentication } })
        server.kill()
        try server.configure { _ in "authorization { user: a, password: wrong }" }
        try server.start()
        try await connection.waitUntilConnected(deadline: .seconds(60))
        try connection.publish([1], to: "a")
        #expect(await received.wait(count: 2))
        withExtendedLifetime(subscription) {}
        await connection.close()
    }
}
