import type { IncomingMessage } from "node:http";
import {
  Controller,
  HttpCode,
  Inject,
  Post,
  type RawBodyRequest,
  Req,
  SetMetadata,
  UnauthorizedException,
} from "@nestjs/common";
import { SkipThrottle } from "@nestjs/throttler";
import { Webhook } from "standardwebhooks";
import { Inbox, type MatrixWebhook } from "./inbox";

export const SECRET = Symbol("the secret of the webhooks");

// All webhooks come from one address: a throttler would take them for an attack.
@SkipThrottle()
// They carry a signature, no session: let your global guards pass them. Use your own decorator here.
@SetMetadata("isPublic", true)
@Controller("webhooks/matrix")
export class MatrixWebhooksController {
  private readonly webhook: Webhook;

  constructor(
    @Inject(SECRET) secret: string,
    private readonly inbox: Inbox,
  ) {
    this.webhook = new Webhook(secret);
  }

  // No @Body(): a global ValidationPipe would strip or refuse what a later release adds.
  @Post()
  @HttpCode(204)
  async take(@Req() request: RawBodyRequest<IncomingMessage>): Promise<void> {
    const headers = request.headers as Record<string, string>;
    let body: MatrixWebhook;
    try {
      // Without `rawBody: true` this is undefined, and every webhook is refused.
      body = this.webhook.verify(request.rawBody as Buffer, headers) as MatrixWebhook;
    } catch {
      throw new UnauthorizedException();
    }
    await this.inbox.keep(headers["webhook-id"], body);
  }
}
